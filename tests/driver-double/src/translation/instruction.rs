//! One instruction of PTX as a statement of C.

use super::registers::{bits_of, is_integer, name, operand};
use super::syntax::{Guard, Instruction, Operand};

/// The instruction in C.
pub(crate) fn in_c(instruction: &Instruction<'_>) -> Result<String, String> {
    let Instruction { guard, opcode, operands } = instruction;
    let unknown = || format!("the instruction `{}` of {operands:?} is not known", opcode.join("."));
    let statement = flow(opcode, operands)
        .or_else(|| matrix(opcode, operands))
        .or_else(|| memory(opcode, operands))
        .or_else(|| moved(opcode, operands))
        .or_else(|| carried(opcode, operands))
        .or_else(|| calculated(opcode, operands))
        .ok_or_else(unknown)?;
    Ok(match guard {
        None => statement,
        Some(Guard { negated, predicate }) => {
            let not = if *negated { "!" } else { "" };
            format!("if ({not}{}) {{ {statement} }}", name(predicate).ok_or_else(unknown)?)
        }
    })
}

/// Jumps, ends and waits.
fn flow(opcode: &[&str], operands: &[Operand<'_>]) -> Option<String> {
    Some(match (opcode, operands) {
        (["bra"] | ["bra", "uni"], [Operand::Value(label)]) => format!("goto {};", label.strip_prefix('$')?),
        (["ret"] | ["exit"], []) => "return;".into(),
        (["bar", "sync"], [Operand::Value("0")]) => "t->wait(t, WAIT_FOR_BLOCK);".into(),
        (["bar", "warp", "sync"], [Operand::Value("-1")]) => "t->wait(t, WAIT_FOR_WARP);".into(),
        _ => return None,
    })
}

/// Loads and stores.
fn memory(opcode: &[&str], operands: &[Operand<'_>]) -> Option<String> {
    let (direction, space, rest) = match opcode {
        [direction @ ("ld" | "st"), space, rest @ ..] => (*direction, *space, rest),
        _ => return None,
    };
    let (number, bits) = match rest {
        ["nc", bits] | [bits] => (1, *bits),
        ["nc", "v2", bits] | ["v2", bits] => (2, *bits),
        ["nc", "v4", bits] | ["v4", bits] => (4, *bits),
        ["nc", "v8", bits] | ["v8", bits] => (8, *bits),
        _ => return None,
    };
    let bits: usize = bits.strip_prefix(['b', 'u'])?.parse().ok()?;
    let bytes = bits / 8;
    let (values, base, offset) = match (direction, operands) {
        ("ld", [values, Operand::Address { base, offset }])
        | ("st", [Operand::Address { base, offset }, values]) => (values, base, offset),
        _ => return None,
    };
    let values = match values {
        Operand::Value(value) => std::slice::from_ref(value),
        Operand::Vector(values) => values,
        Operand::Address { .. } => return None,
    };
    if values.len() != number {
        return None;
    }
    let address = format!("{} + ({offset})", name(base)?);
    let checked = match space {
        "global" | "shared" | "local" => format!("{space}(t, {address}, {})", number * bytes),
        "param" if direction == "ld" => address,
        _ => return None,
    };
    let each = values.iter().enumerate().map(|(place, value)| {
        let at = format!("at + {}", place * bytes);
        Some(match direction {
            "ld" => format!("{} = load_{bits}({at});", name(value)?),
            _ => format!("store_{bits}({at}, {});", operand(value, &format!("b{bits}"))?),
        })
    });
    Some(format!("{{ uint64_t at = {checked}; {} }}", each.collect::<Option<Vec<_>>>()?.join(" ")))
}

/// `mov`, which also takes registers together and apart.
fn moved(opcode: &[&str], operands: &[Operand<'_>]) -> Option<String> {
    let ["mov", of] = opcode else { return None };
    let bits: usize = of.strip_prefix(['b', 'u', 's', 'f'])?.parse().ok()?;
    Some(match operands {
        [Operand::Value(target), Operand::Value(source)] => {
            format!("{} = {};", name(target)?, operand(source, &format!("b{bits}"))?)
        }
        [Operand::Value(target), Operand::Vector(parts)] => {
            let each = bits / parts.len();
            let parts = parts.iter().enumerate().map(|(place, part)| {
                Some(format!("(uint{bits}_t){} << {}", operand(part, &format!("b{each}"))?, place * each))
            });
            format!("{} = {};", name(target)?, parts.collect::<Option<Vec<_>>>()?.join(" | "))
        }
        [Operand::Vector(parts), Operand::Value(source)] => {
            let each = bits / parts.len();
            let source = operand(source, &format!("b{bits}"))?;
            // What is not needed has no name.
            let named = parts.iter().enumerate().filter(|(_, part)| **part != "_");
            let parts = named.map(|(place, part)| {
                Some(format!("{} = (uint{each}_t)(whole >> {});", name(part)?, place * each))
            });
            format!("{{ uint{bits}_t whole = {source}; {} }}", parts.collect::<Option<Vec<_>>>()?.join(" "))
        }
        _ => return None,
    })
}

/// Products and sums of more than 32 bits, part by part.
fn carried(opcode: &[&str], operands: &[Operand<'_>]) -> Option<String> {
    let [Operand::Value(target), Operand::Value(a), Operand::Value(b), Operand::Value(c)] = operands else {
        return None;
    };
    let target = name(target)?;
    let [a, b, c] = [a, b, c].map(|source| operand(source, "u32"));
    let (a, b, c) = (a?, b?, c?);
    match opcode {
        ["mad", "lo", "cc", "u32"] => Some(format!(
            "{{ uint64_t whole = (uint64_t)({a} * {b}) + {c}; carry = whole >> 32; {target} = (uint32_t)whole; }}"
        )),
        ["madc", "hi", "u32"] => {
            Some(format!("{target} = (uint32_t)(((uint64_t){a} * {b} >> 32) + {c} + carry);"))
        }
        _ => None,
    }
}

/// What makes one value of up to three.
fn calculated(opcode: &[&str], operands: &[Operand<'_>]) -> Option<String> {
    let (target, sources) = operands.split_first()?;
    let Operand::Value(target) = target else { return None };
    let sources = sources.iter().map(|source| match source {
        Operand::Value(source) => Some(*source),
        _ => None,
    });
    let sources = sources.collect::<Option<Vec<_>>>()?;
    let (made, value) = comparison(opcode, &sources)
        .or_else(|| conversion(opcode, &sources))
        .or_else(|| floats(opcode, &sources))
        .or_else(|| integers(opcode, &sources))?;
    Some(format!("{} = {};", name(target)?, bits_of(&made, &value)?))
}

type Made = (String, String);

fn comparison(opcode: &[&str], sources: &[&str]) -> Option<Made> {
    match (opcode, sources) {
        (["setp", relation, of], [a, b]) => {
            let (a, b) = (operand(a, of)?, operand(b, of)?);
            let ordered = |sign: &str| format!("{a} {sign} {b}");
            // With a `u` it holds as well where one side is no number.
            let unordered = |opposite: &str| format!("!({a} {opposite} {b})");
            let float = matches!(*of, "f32" | "bf16");
            let text = match (*relation, float) {
                ("eq", _) => ordered("=="),
                ("lt", _) => ordered("<"),
                ("le", _) => ordered("<="),
                ("gt", _) => ordered(">"),
                ("ge", _) => ordered(">="),
                ("ne", false) | ("neu", true) => ordered("!="),
                ("ltu", true) => unordered(">="),
                ("leu", true) => unordered(">"),
                ("gtu", true) => unordered("<="),
                ("geu", true) => unordered("<"),
                ("equ", true) => format!("!({a} < {b} || {a} > {b})"),
                ("num", true) => format!("({a} == {a} && {b} == {b})"),
                ("nan", true) => format!("({a} != {a} || {b} != {b})"),
                _ => return None,
            };
            Some(("pred".into(), text))
        }
        (["selp", of], [a, b, predicate]) => {
            // Bits are chosen, not numbers.
            let of = format!("b{}", of.trim_start_matches(char::is_alphabetic));
            let text = format!("({} ? {} : {})", name(predicate)?, operand(a, &of)?, operand(b, &of)?);
            Some((of, text))
        }
        _ => None,
    }
}

fn conversion(opcode: &[&str], sources: &[&str]) -> Option<Made> {
    let made = |of: &str, text: String| Some((of.to_owned(), text));
    match (opcode, sources) {
        (["cvt", "rn", "bf16x2", "f32"], [high, low]) => {
            made("b32", format!("bf16_pair({}, {})", operand(high, "f32")?, operand(low, "f32")?))
        }
        (["cvt", "rn", "bf16", "f32"], [a]) => made("bf16", operand(a, "f32")?),
        (["cvt", "f32", "bf16"], [a]) => made("f32", operand(a, "bf16")?),
        (["cvt", "rna", "tf32", "f32"], [a]) => made("b32", format!("tf32_bits({})", operand(a, "f32")?)),
        (["cvt", "sat", "f32", "f32"], [a]) => made("f32", format!("saturated({})", operand(a, "f32")?)),
        (["cvt", rounding, of @ ("f32" | "s32" | "u32"), "f32"], [a]) if whole(rounding).is_some() => {
            let whole = format!("{}({})", whole(rounding)?, operand(a, "f32")?);
            made(of, if *of == "f32" { whole } else { format!("{of}_of_f32({whole})") })
        }
        (["cvt", "rn", "f32", from], [a]) if is_integer(from) || *from == "f64" => {
            made("f32", format!("(float){}", operand(a, from)?))
        }
        (["cvt", "rn", "f64", from], [a]) if is_integer(from) => {
            made("f64", format!("(double){}", operand(a, from)?))
        }
        (["cvt", to, from], [a]) if is_integer(to) && is_integer(from) => made(to, operand(a, from)?),
        (["cvta", "shared" | "global" | "local", "u64"], [a])
        | (["cvta", "to", "shared" | "global" | "local", "u64"], [a]) => made("u64", operand(a, "u64")?),
        _ => None,
    }
}

/// The function that rounds to a whole number.
fn whole(rounding: &str) -> Option<&'static str> {
    match rounding {
        "rni" => Some("rintf"),
        "rzi" => Some("truncf"),
        "rmi" => Some("floorf"),
        "rpi" => Some("ceilf"),
        _ => None,
    }
}

fn floats(opcode: &[&str], sources: &[&str]) -> Option<Made> {
    let values = |of: &str| sources.iter().map(|source| operand(source, of)).collect::<Option<Vec<_>>>();
    match opcode {
        [operation, "bf16x2"] | [operation, "rn", "bf16x2"] => return pairs(operation, &BF16, sources),
        [operation, "f32x2"] | [operation, "rn", "f32x2"] => return pairs(operation, &FLOAT32, sources),
        _ => {}
    }
    // The factors, or the first, in bf16; the last, and the result, in float32.
    if let [operation @ ("add" | "sub" | "fma"), "rn", "f32", "bf16"] = opcode {
        let (last, narrow) = sources.split_last()?;
        let last = operand(last, "f32")?;
        let narrow = narrow.iter().map(|source| operand(source, "bf16")).collect::<Option<Vec<_>>>()?;
        let text = match (*operation, &narrow[..]) {
            ("add", [a]) => format!("{a} + {last}"),
            ("sub", [a]) => format!("{a} - {last}"),
            ("fma", [a, b]) => format!("fmaf({a}, {b}, {last})"),
            _ => return None,
        };
        return Some(("f32".into(), text));
    }
    let (of, values) = match opcode.last() {
        Some(&of @ ("f32" | "bf16" | "f64")) => (of, values(of)?),
        _ => return None,
    };
    let text = match (opcode, &values[..]) {
        (["add", ..], [a, b]) => format!("{a} + {b}"),
        (["sub", ..], [a, b]) => format!("{a} - {b}"),
        (["mul", ..], [a, b]) => format!("{a} * {b}"),
        (["div", "rn", _], [a, b]) => format!("{a} / {b}"),
        (["fma", "rn", _], [a, b, c]) => format!("fmaf({a}, {b}, {c})"),
        (["fma", "rm", _], [a, b, c]) => format!("fma_down({a}, {b}, {c})"),
        (["max", _], [a, b]) => format!("fmaxf({a}, {b})"),
        (["min", _], [a, b]) => format!("fminf({a}, {b})"),
        // The sign is that of the first.
        (["copysign", _], [a, b]) => format!("copysignf({b}, {a})"),
        (["max", "NaN", _], [a, b]) => format!("larger_or_none({a}, {b})"),
        (["max", "NaN", _], [a, b, c]) => format!("larger_or_none(larger_or_none({a}, {b}), {c})"),
        (["min", "NaN", _], [a, b]) => format!("-larger_or_none(-{a}, -{b})"),
        (["neg", _], [a]) => format!("-{a}"),
        (["abs", _], [a]) => format!("fabsf({a})"),
        (["sqrt", "rn", _], [a]) => format!("sqrtf({a})"),
        (["rcp", "rn", _], [a]) => format!("1.0f / {a}"),
        (["rcp", "approx", "ftz", _], [a]) => format!("flushed(1.0f / flushed({a}))"),
        (["ex2", "approx", "ftz", _], [a]) => format!("flushed(exp2f(flushed({a})))"),
        (["lg2", "approx", "ftz", _], [a]) => format!("log2f(flushed({a}))"),
        _ => return None,
    };
    // Functions of C are those of float32.
    let signs = matches!(opcode[0], "add" | "sub" | "mul" | "div");
    // Roundings and flushes that are not written out above are not known.
    let plain = opcode[1..opcode.len() - 1]
        .iter()
        .all(|part| matches!(*part, "rn" | "rm" | "approx" | "ftz" | "NaN"));
    let flushes = opcode.contains(&"ftz") && !opcode.contains(&"approx");
    (plain && !flushes && (signs || of != "f64")).then(|| (of.to_owned(), text))
}

/// Two numbers in one register.
struct Paired {
    /// The register.
    whole: &'static str,
    /// One number of its bits.
    of: &'static str,
    /// Bits of one number.
    bits: u32,
    /// Both of the higher and the lower.
    both: &'static str,
}

const BF16: Paired = Paired { whole: "b32", of: "bf16_of", bits: 16, both: "bf16_pair" };
const FLOAT32: Paired = Paired { whole: "b64", of: "f32_of", bits: 32, both: "f32_pair" };

/// Both numbers on their own, each rounded once.
fn pairs(operation: &str, paired: &Paired, sources: &[&str]) -> Option<Made> {
    let half = |shift: u32| -> Option<String> {
        let of =
            |source: &&str| Some(format!("{}({} >> {shift})", paired.of, operand(source, paired.whole)?));
        let values = sources.iter().map(of).collect::<Option<Vec<_>>>()?;
        Some(match (operation, &values[..]) {
            ("add", [a, b]) => format!("{a} + {b}"),
            ("sub", [a, b]) => format!("{a} - {b}"),
            ("mul", [a, b]) => format!("{a} * {b}"),
            ("max", [a, b]) => format!("fmaxf({a}, {b})"),
            ("min", [a, b]) => format!("fminf({a}, {b})"),
            ("fma", [a, b, c]) => format!("fmaf({a}, {b}, {c})"),
            _ => return None,
        })
    };
    Some((paired.whole.into(), format!("{}({}, {})", paired.both, half(paired.bits)?, half(0)?)))
}

fn integers(opcode: &[&str], sources: &[&str]) -> Option<Made> {
    let of = *opcode.last()?;
    if !is_integer(of) && of != "pred" {
        return None;
    }
    let values = sources.iter().map(|source| operand(source, of)).collect::<Option<Vec<_>>>()?;
    let bits = of.trim_start_matches(char::is_alphabetic);
    let twice = bits.parse::<u32>().map_or(0, |bits| 2 * bits);
    let wide = |of: &str| format!("{}int{twice}_t", if of.starts_with('s') { "" } else { "u" });
    let text = match (opcode, &values[..]) {
        (["add", _], [a, b]) => format!("(uint{bits}_t){a} + (uint{bits}_t){b}"),
        (["sub", _], [a, b]) => format!("(uint{bits}_t){a} - (uint{bits}_t){b}"),
        (["mul", "lo", _], [a, b]) => format!("(uint{bits}_t){a} * (uint{bits}_t){b}"),
        (["mad", "lo", _], [a, b, c]) => {
            format!("(uint{bits}_t){a} * (uint{bits}_t){b} + (uint{bits}_t){c}")
        }
        (["mul", "wide", _], [a, b]) if twice <= 64 => {
            let of = wide(of);
            return Some((format!("b{twice}"), format!("({of}){a} * ({of}){b}")));
        }
        (["mad", "wide", _], [a, b, _]) if twice <= 64 => {
            let c = operand(sources[2], &format!("b{twice}"))?;
            let of = wide(of);
            return Some((format!("b{twice}"), format!("({of}){a} * ({of}){b} + {c}")));
        }
        (["mul", "hi", _], [a, b]) if twice <= 64 => {
            let of = wide(of);
            format!("({of}){a} * ({of}){b} >> {bits}")
        }
        // A division by zero is all ones on the card.
        (["div", _], [a, b]) => format!("{b} == 0 ? -1 : {a} / {b}"),
        (["rem", _], [a, b]) => format!("{b} == 0 ? {a} : {a} % {b}"),
        (["min", _], [a, b]) => format!("{a} < {b} ? {a} : {b}"),
        (["max", _], [a, b]) => format!("{a} > {b} ? {a} : {b}"),
        (["neg", _], [a]) => format!("0 - (uint{bits}_t){a}"),
        (["not", "pred"], [a]) => format!("!{a}"),
        (["not", _], [a]) => format!("~{a}"),
        (["and", _], [a, b]) => format!("{a} & {b}"),
        (["or", _], [a, b]) => format!("{a} | {b}"),
        (["xor", _], [a, b]) => format!("{a} ^ {b}"),
        (["shl", _], [a, _]) => {
            let by = operand(sources[1], "b32")?;
            format!("{by} < {bits} ? {a} << {by} : 0")
        }
        (["shr", _], [a, _]) => {
            let by = operand(sources[1], "b32")?;
            let beyond = if of.starts_with('s') { format!("{a} >> ({bits} - 1)") } else { "0".into() };
            format!("{by} < {bits} ? {a} >> {by} : {beyond}")
        }
        (["bfe", "u32"], [a, b, c]) => format!("field({a}, {b}, {c})"),
        (["shf", "l", "wrap", "b32"], [a, b, c]) => {
            format!("(uint32_t)(((uint64_t){b} << 32 | {a}) << ({c} & 31) >> 32)")
        }
        (["shf", "r", "wrap", "b32"], [a, b, c]) => {
            format!("(uint32_t)(((uint64_t){b} << 32 | {a}) >> ({c} & 31))")
        }
        (["prmt", "b32"], [a, b, c]) => format!("permuted({a}, {b}, {c})"),
        _ => return None,
    };
    Some((of.to_owned(), text))
}

/// Loads, products and stores of tensor cores.
fn matrix(opcode: &[&str], operands: &[Operand<'_>]) -> Option<String> {
    match (opcode, operands) {
        (
            ["wmma", "load", which @ ("a" | "b"), "sync", "aligned", order, shape, "shared", of],
            [Operand::Vector(registers), Operand::Address { base, offset }, Operand::Value(stride)],
        ) => {
            let [_, n, k] = sizes(shape)?;
            let columns = if *which == "a" { k } else { n };
            let (bytes, number) = (bytes_of(of)?, registers.len());
            Some(format!(
                "{{ uint32_t f[{number}]; load_fragment(t, {} + ({offset}), f, {number}, {bytes}, {columns}, {}, {}); {} }}",
                name(base)?,
                by_row(order)?,
                operand(stride, "u32")?,
                taken(registers, "f")?
            ))
        }
        (
            ["wmma", "store", "d", "sync", "aligned", order, shape, "shared", "f32"],
            [Operand::Address { base, offset }, Operand::Vector(registers), Operand::Value(stride)],
        ) => {
            let [_, n, _] = sizes(shape)?;
            Some(format!(
                "{{ uint32_t f[] = {}; store_fragment(t, {} + ({offset}), f, {}, {n}, {}, {}); }}",
                array(registers)?,
                name(base)?,
                registers.len(),
                by_row(order)?,
                operand(stride, "u32")?
            ))
        }
        (
            ["wmma", "mma", "sync", "aligned", _, _, shape, "f32", of, same, "f32"],
            [Operand::Vector(d), Operand::Vector(a), Operand::Vector(b), Operand::Vector(c)],
        ) if of == same => {
            let [m, n, k] = sizes(shape)?;
            Some(format!(
                "{{ uint32_t a[] = {}, b[] = {}, c[] = {}; multiply(t, a, {}, b, {}, c, c, {}, {m}, {n}, {k}); {} }}",
                array(a)?,
                array(b)?,
                array(c)?,
                a.len(),
                b.len(),
                bytes_of(of)?,
                taken(d, "c")?
            ))
        }
        _ => None,
    }
}

/// Gives the registers the values of an array.
fn taken(registers: &[&str], array: &str) -> Option<String> {
    let each = registers.iter().enumerate();
    let each = each.map(|(place, register)| Some(format!("{} = {array}[{place}];", name(register)?)));
    Some(each.collect::<Option<Vec<_>>>()?.join(" "))
}

fn array(registers: &[&str]) -> Option<String> {
    let registers = registers.iter().map(|register| operand(register, "b32"));
    Some(format!("{{{}}}", registers.collect::<Option<Vec<_>>>()?.join(", ")))
}

/// `m16n16k8`.
fn sizes(shape: &str) -> Option<[usize; 3]> {
    let (m, rest) = shape.strip_prefix('m')?.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some([m.parse().ok()?, n.parse().ok()?, k.parse().ok()?])
}

fn bytes_of(of: &str) -> Option<usize> {
    match of {
        "bf16" => Some(2),
        "tf32" => Some(4),
        _ => None,
    }
}

fn by_row(order: &str) -> Option<&'static str> {
    match order {
        "row" => Some("true"),
        "col" => Some("false"),
        _ => None,
    }
}
