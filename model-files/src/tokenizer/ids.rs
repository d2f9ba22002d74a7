//! The tokens of a `tokenizer.json` and their ids; `<image>` marks the place of an image, which no text has.

use serde_json::Value;

/// The published image token.
pub const IMAGE: &str = "<image>";

/// The id of `<image>`, where the tokenizer has it.
pub fn id_of_image(tokenizer: &Value) -> Option<u32> {
    tokens(tokenizer).find(|(content, _)| *content == IMAGE).map(|(_, id)| id)
}

/// The smallest id above those of all tokens.
pub fn first_free(tokenizer: &Value) -> u32 {
    tokens(tokenizer).map(|(_, id)| id + 1).max().unwrap_or(0)
}

/// All tokens: those of the model and those added to it.
fn tokens(tokenizer: &Value) -> impl Iterator<Item = (&str, u32)> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    // A table of ids, or in a unigram model a list of pieces with their scores.
    let table = tokenizer.pointer("/model/vocab").and_then(Value::as_object);
    let list = tokenizer.pointer("/model/vocab").and_then(Value::as_array);
    let table =
        table.into_iter().flatten().filter_map(move |(content, at)| Some((content.as_str(), id(at)?)));
    let list = list.into_iter().flatten().enumerate();
    let list = list.filter_map(|(at, piece)| Some((piece[0].as_str()?, u32::try_from(at).ok()?)));
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    table
        .chain(list)
        .chain(added.filter_map(move |token| Some((token["content"].as_str()?, id(&token["id"])?))))
}

/// The text of the token `id`.
pub fn content_of(tokenizer: &Value, id: u32) -> Option<String> {
    // An added token's name stands before the one that the model's table gives the same id.
    tokens(tokenizer).filter(|(_, of)| *of == id).last().map(|(content, _)| content.to_string())
}
