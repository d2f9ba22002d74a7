//! How texts become tokens of a family.

use blip2_dataset::text::TextEncoding;
use blip2_model::language::SpecialTokens;

/// How texts behind a prompt become tokens of a family: OPT ends them with a line feed, Llama with its own
/// end token, and T5's tokenizer ends every text itself.
pub(super) fn encoding(
    length: usize,
    prompt: &str,
    tokens: &SpecialTokens,
    encoder_decoder: bool,
) -> TextEncoding {
    let plain = TextEncoding::new(length, tokens.pad);
    if encoder_decoder {
        return plain;
    }
    let prefix = match prompt {
        "" => String::new(),
        prompt => format!("{prompt} "),
    };
    match tokens.captions_end_with_newline {
        true => TextEncoding { prefix, suffix: "\n".into(), ..plain },
        false => TextEncoding { prefix, start: tokens.start, end: tokens.eos.first().copied(), ..plain },
    }
}
