//! PTX as LLVM's back end writes it: entries, their declarations and statements.

/// One kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) parameters: Vec<&'a str>,
    /// Threads of a block, where the module says how many.
    pub(crate) threads: Option<[u32; 3]>,
    pub(crate) statements: Vec<Statement<'a>>,
}

/// Bytes that a module has in the card's memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Constant<'a> {
    pub(crate) name: &'a str,
    pub(crate) alignment: &'a str,
    /// As C has them between braces.
    pub(crate) bytes: &'a str,
}

/// What stands in a kernel's body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Statement<'a> {
    Label(&'a str),
    /// `.reg` and `.local`: the words after the directive.
    Declaration {
        directive: &'a str,
        words: Vec<&'a str>,
    },
    Instruction(Instruction<'a>),
}

/// One instruction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Instruction<'a> {
    pub(crate) guard: Option<Guard<'a>>,
    /// The name and what follows it, without the points between.
    pub(crate) opcode: Vec<&'a str>,
    pub(crate) operands: Vec<Operand<'a>>,
}

/// `@p` or `@!p`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Guard<'a> {
    pub(crate) negated: bool,
    pub(crate) predicate: &'a str,
}

/// What an instruction reads or writes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Operand<'a> {
    /// A register, a number or a name.
    Value(&'a str),
    /// `{a, b}`.
    Vector(Vec<&'a str>),
    /// `[base+offset]`.
    Address { base: &'a str, offset: &'a str },
}

/// Entries of a module, whose comments are taken out. Functions that are called are not among them.
pub(crate) fn entries(module: &str) -> Result<Vec<Entry<'_>>, String> {
    module.split(".visible .entry ").skip(1).map(entry).collect()
}

/// Constants of a module.
pub(crate) fn constants(module: &str) -> Result<Vec<Constant<'_>>, String> {
    let constants = module.lines().filter_map(|line| line.strip_prefix(".global "));
    constants
        .map(|text| constant(text).ok_or_else(|| format!("the constant `{text}` is not known")))
        .collect()
}

fn constant(text: &str) -> Option<Constant<'_>> {
    let (alignment, rest) = text.strip_prefix(".align ")?.split_once(" .b8 ")?;
    let (name, rest) = rest.split_once('[')?;
    let bytes = rest.split_once("] = {")?.1.strip_suffix("};")?;
    Some(Constant { name, alignment, bytes })
}

/// A module without its comments.
pub(crate) fn without_comments(module: &str) -> String {
    module.lines().map(|line| line.split("//").next().unwrap_or_default()).fold(
        String::new(),
        |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        },
    )
}

fn entry(text: &str) -> Result<Entry<'_>, String> {
    let cut = |part: &str| format!("an entry without its {part}");
    let (name, rest) = text.split_once('(').ok_or_else(|| cut("parameters"))?;
    let (parameters, rest) = rest.split_once(')').ok_or_else(|| cut("parameters"))?;
    let (directives, rest) = rest.split_once('{').ok_or_else(|| cut("body"))?;
    let body = rest.get(..end_of_body(rest).ok_or_else(|| cut("end"))?).unwrap_or_default();
    let parameters = parameters.split(',').filter_map(|parameter| parameter.split_whitespace().last());
    Ok(Entry {
        name: name.trim(),
        parameters: parameters.map(|name| name.split('[').next().unwrap_or(name)).collect(),
        threads: threads(directives),
        statements: statements(body)?,
    })
}

/// Where the brace is closed that was opened before `text`.
fn end_of_body(text: &str) -> Option<usize> {
    let mut depth = 1_usize;
    text.char_indices().find_map(|(place, character)| {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(place)
    })
}

fn threads(directives: &str) -> Option<[u32; 3]> {
    let (_, numbers) = directives.split_once(".reqntid")?;
    let numbers = numbers.split('.').next()?.split(',').map(|number| number.trim().parse());
    numbers.collect::<Result<Vec<u32>, _>>().ok()?.try_into().ok()
}

fn statements(body: &str) -> Result<Vec<Statement<'_>>, String> {
    let mut statements = Vec::new();
    for text in body.split(';') {
        let mut text = outside_braces(text);
        while let Some((label, rest)) = label(text) {
            statements.push(Statement::Label(label));
            text = outside_braces(rest);
        }
        if text.is_empty() {
            continue;
        }
        statements.push(if text.starts_with('.') { declaration(text) } else { instruction(text)? });
    }
    Ok(statements)
}

/// Assembly that a library has inline stands in braces of its own.
fn outside_braces(text: &str) -> &str {
    text.trim()
        .trim_start_matches(|character: char| matches!(character, '{' | '}') || character.is_whitespace())
}

fn label(text: &str) -> Option<(&str, &str)> {
    let (label, rest) = text.split_once(':')?;
    label.strip_prefix('$').filter(|label| !label.contains(char::is_whitespace)).map(|label| (label, rest))
}

fn declaration(text: &str) -> Statement<'_> {
    let mut words = text.split_whitespace();
    Statement::Declaration { directive: words.next().unwrap_or_default(), words: words.collect() }
}

fn instruction(text: &str) -> Result<Statement<'_>, String> {
    let (guard, text) = match text.strip_prefix('@') {
        None => (None, text),
        Some(guarded) => {
            let (predicate, rest) =
                guarded.split_once(char::is_whitespace).ok_or_else(|| format!("`{text}`"))?;
            let bare = predicate.strip_prefix('!');
            let guard = Guard { negated: bare.is_some(), predicate: bare.unwrap_or(predicate) };
            (Some(guard), rest.trim_start())
        }
    };
    let (opcode, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    Ok(Statement::Instruction(Instruction {
        guard,
        opcode: opcode.split('.').collect(),
        operands: operands_of(operands)?,
    }))
}

fn operands_of(mut text: &str) -> Result<Vec<Operand<'_>>, String> {
    let mut operands = Vec::new();
    loop {
        text = text.trim_start_matches(|character: char| character == ',' || character.is_whitespace());
        let Some(first) = text.chars().next() else { return Ok(operands) };
        let open = |close| {
            let inner = text.get(1..).and_then(|text| text.split_once(close));
            inner.ok_or_else(|| format!("`{text}` is not closed"))
        };
        let (operand, rest) = match first {
            '{' => {
                let (inner, rest) = open('}')?;
                (Operand::Vector(inner.split(',').map(str::trim).collect()), rest)
            }
            '[' => {
                let (inner, rest) = open(']')?;
                let (base, offset) = inner.split_once('+').unwrap_or((inner, "0"));
                (Operand::Address { base: base.trim(), offset: offset.trim() }, rest)
            }
            _ => {
                let end = text.find(',').unwrap_or(text.len());
                (Operand::Value(text[..end].trim()), &text[end..])
            }
        };
        operands.push(operand);
        text = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_taken_apart() {
        let module = without_comments(
            ".version 9.0 // of PTX\n.visible .entry copy(\n\t.param .u64 .ptr .global .align 1 copy_param_0,\n\
             \t.param .align 8 .b8 copy_param_1[16]\n)\n.reqntid 32, 8, 1\n{\n\t.reg .b32 \t%r<3>;\n\
             $L__BB0_1:\n\t{\n\tret;\n\t}\n\tld.shared.v2.b32 \t{%r1, %r2}, [cube_shared+-8];\n\t@!%p1 bra \t$L__BB0_1;\n\tret;\n}\n",
        );
        let entries = entries(&module).unwrap();
        let [copy] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!((copy.name, copy.threads), ("copy", Some([32, 8, 1])));
        assert_eq!(copy.parameters, ["copy_param_0", "copy_param_1"]);
        let instruction = |guard, opcode: &str, operands| {
            let opcode = opcode.to_owned().leak().split('.').collect();
            Statement::Instruction(Instruction { guard, opcode, operands })
        };
        assert_eq!(
            copy.statements,
            [
                Statement::Declaration { directive: ".reg", words: vec![".b32", "%r<3>"] },
                Statement::Label("L__BB0_1"),
                instruction(None, "ret", vec![]),
                instruction(
                    None,
                    "ld.shared.v2.b32",
                    vec![
                        Operand::Vector(vec!["%r1", "%r2"]),
                        Operand::Address { base: "cube_shared", offset: "-8" },
                    ],
                ),
                instruction(
                    Some(Guard { negated: true, predicate: "%p1" }),
                    "bra",
                    vec![Operand::Value("$L__BB0_1")]
                ),
                instruction(None, "ret", vec![]),
            ]
        );
    }

    #[test]
    fn constants_are_found() {
        let module = ".global .align 4 .b8 table[3] = {65, 144, 67};\n";
        assert_eq!(
            constants(module),
            Ok(vec![Constant { name: "table", alignment: "4", bytes: "65, 144, 67" }])
        );
        assert!(constants(".global .align 4 .b32 table[1];").unwrap_err().contains("not known"));
    }

    #[test]
    fn a_torn_module_is_refused() {
        for torn in ["copy", "copy(", "copy()", "copy() {", "copy() { ld.global.b32 %r1, [%rd1; }"] {
            assert!(entries(&format!(".visible .entry {torn}")).is_err(), "{torn}");
        }
    }
}
