//! What instructions read and write: registers, names and numbers, as C has them.

/// Whether the type is that of a whole number.
pub(super) fn is_integer(of: &str) -> bool {
    of.strip_prefix(['u', 's', 'b']).is_some_and(|bits| matches!(bits, "8" | "16" | "32" | "64"))
}

/// A register or a name of the module, as C has it.
pub(super) fn name(text: &str) -> Option<&str> {
    if let Some(register) = text.strip_prefix('%') {
        let number = register.trim_start_matches(['p', 'r', 's', 'd']);
        let numbered = !number.is_empty() && number.chars().all(|digit| digit.is_ascii_digit());
        return (numbered || matches!(register, "SP" | "SPL")).then_some(register);
    }
    let plain = text.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
    (plain && text.starts_with(|character: char| !character.is_ascii_digit())).then_some(text)
}

/// What an instruction reads, as a number of type `of`.
pub(super) fn operand(text: &str, of: &str) -> Option<String> {
    let bits = if let Some(double) = text.strip_prefix("0d") {
        format!("0x{double}ull")
    } else if let Some(float) = text.strip_prefix("0f") {
        format!("0x{float}u")
    } else if let Some((register, axis)) = text.strip_prefix('%').and_then(|text| text.split_once('.')) {
        let axis = ["x", "y", "z"].iter().position(|known| *known == axis)?;
        matches!(register, "tid" | "ctaid" | "ntid" | "nctaid").then(|| format!("t->{register}[{axis}]"))?
    } else if text.starts_with(|character: char| character.is_ascii_digit() || character == '-') {
        let number = text.trim_end_matches('U');
        let digits = number.trim_start_matches('-').trim_start_matches("0x");
        digits.chars().all(|digit| digit.is_ascii_hexdigit()).then(|| format!("({number}ll)"))?
    } else {
        name(text)?.to_owned()
    };
    Some(match of {
        "f32" => format!("f32_of({bits})"),
        "f64" => format!("f64_of({bits})"),
        "bf16" => format!("bf16_of({bits})"),
        "pred" => bits,
        _ if is_integer(of) => format!("({})({bits})", integer(of)),
        _ => return None,
    })
}

/// A number of type `of` as the bits of a register.
pub(super) fn bits_of(of: &str, value: &str) -> Option<String> {
    Some(match of {
        "f32" => format!("f32_bits({value})"),
        "f64" => format!("f64_bits({value})"),
        "bf16" => format!("bf16_bits({value})"),
        "pred" => format!("({value})"),
        // A signed number fills a wider register with its sign.
        _ if is_integer(of) => format!("({})({value})", integer(of)),
        _ => return None,
    })
}

/// The type of a whole number in C.
fn integer(of: &str) -> String {
    let bits = of.trim_start_matches(char::is_alphabetic);
    format!("{}int{bits}_t", if of.starts_with('s') { "" } else { "u" })
}
