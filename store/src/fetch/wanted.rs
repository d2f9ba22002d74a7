//! Which files of a published model's folder are needed: one format of the weights, and what goes with them.

/// Files beside the weights, wherever a model has them.
pub(crate) const BESIDE: [&str; 21] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "qformer_tokenizer/tokenizer.json",
    "qformer_tokenizer/tokenizer_config.json",
    "qformer_tokenizer/special_tokens_map.json",
    "qformer_tokenizer/added_tokens.json",
    "qformer_tokenizer/vocab.txt",
    "LICENSE",
];

/// Weights, the better format first: one file, or an index and shards with the file's name and a number.
pub(crate) const WEIGHTS: [(&str, &str); 4] = [
    ("model.safetensors", "safetensors"),
    ("model.safetensors.index.json", "safetensors"),
    ("pytorch_model.bin", "bin"),
    ("pytorch_model.bin.index.json", "bin"),
];

/// Extensions of files that hold weights.
const WEIGHT_EXTENSIONS: [&str; 6] = [".safetensors", ".bin", ".pth", ".pt", ".gguf", ".ckpt"];

/// Whether a name is that of a file with weights.
pub fn is_weight_file(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    WEIGHT_EXTENSIONS.iter().any(|extension| name.ends_with(extension))
}

/// Whether a file of this name may be needed, whatever else there is.
pub(crate) fn is_wanted_anywhere(name: &str) -> bool {
    BESIDE.contains(&name) || is_weight_file(name) || name.ends_with(".index.json")
}

/// Those of the `names` in a model's folder that are needed, in their order. A format is never taken twice:
/// safetensors before PyTorch's, one file before shards. What other frameworks need is left out.
///
/// # Errors
/// Where no weights have the usual names: those that are there, one of which must then be chosen.
pub fn wanted_files(names: &[String]) -> Result<Vec<String>, Vec<String>> {
    let has = |name: &str| names.iter().any(|other| other == name);
    let Some((first, extension)) = WEIGHTS.iter().find(|(name, _)| has(name)) else {
        return Err(names.iter().filter(|name| is_weight_file(name)).cloned().collect());
    };
    let stem = first.split('.').next().unwrap_or_default();
    let sharded = first.ends_with(".index.json");
    let wanted = |name: &&String| {
        BESIDE.contains(&name.as_str()) || name == first || (sharded && is_shard(name, stem, extension))
    };
    Ok(names.iter().filter(wanted).cloned().collect())
}

/// `model-00001-of-00002.safetensors`.
fn is_shard(name: &str, stem: &str, extension: &str) -> bool {
    let middle = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
    let middle = middle.and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.strip_suffix('.'));
    let numbers = middle.and_then(|rest| rest.split_once("-of-"));
    numbers.is_some_and(|(index, count)| {
        [index, count].iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str]) -> Result<Vec<String>, Vec<String>> {
        wanted_files(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn one_format_is_taken_and_others_are_left() {
        let bert = wanted(&[
            ".gitattributes",
            "README.md",
            "config.json",
            "coreml/model.mlpackage",
            "flax_model.msgpack",
            "model.onnx",
            "model.safetensors",
            "pytorch_model.bin",
            "rust_model.ot",
            "tf_model.h5",
            "tokenizer.json",
            "vocab.txt",
        ]);
        assert_eq!(bert.unwrap(), ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]);
        let t5 = wanted(&[
            "config.json",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model-00002-of-00002.bin",
            "pytorch_model.bin.index.json",
            "pytorch_model.fp16-00001-of-00002.bin",
            "spiece.model",
            "model.fp16.safetensors",
            "tf_model-00001-of-00002.h5",
        ]);
        assert_eq!(
            t5.unwrap(),
            [
                "config.json",
                "pytorch_model-00001-of-00002.bin",
                "pytorch_model-00002-of-00002.bin",
                "pytorch_model.bin.index.json",
                "spiece.model",
            ]
        );
        let both = wanted(&[
            "model-00001-of-00002.safetensors",
            "model.safetensors",
            "model.safetensors.index.json",
        ]);
        assert_eq!(both.unwrap(), ["model.safetensors"]);
    }

    #[test]
    fn weights_of_other_names_are_to_be_chosen() {
        let error = wanted(&["README.md", "a.Q4_1.gguf", "a.Q8_0.gguf"]).unwrap_err();
        assert_eq!(error, ["a.Q4_1.gguf", "a.Q8_0.gguf"]);
        assert!(is_weight_file("eva_vit_g.pth") && !is_weight_file("config.json"));
    }
}
