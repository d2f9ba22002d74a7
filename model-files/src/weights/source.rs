//! The tensors of a file or folder under this project's names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::names::{NameStyle, first_part, is_ignored, matches};
use super::wrapping::unwrapped;
use crate::error::ModelError;
use crate::formats::container::{Container, Stored};
use crate::formats::folder;
use crate::formats::open::open_file;

/// Names that are not close enough to be meant are not suggested.
const SIMILAR: f64 = 0.6;

/// Names that an error lists at most.
const LISTED: usize = 8;

/// A set of named tensors in files; only the tensor asked for is in memory.
///
/// Files are told by their beginning: safetensors, PyTorch's (archives and older streams of pickles; a state
/// dictionary under `model`, as LAVIS writes it, is found) and GGUF. A folder has `model.safetensors` or
/// `pytorch_model.bin`, or either in shards with an index.
///
/// What wrappers put into the names (`module.` of data-parallel models) is left out of them, and BERT's
/// `LayerNorm.gamma` and `.beta` are called weight and bias.
#[derive(Debug)]
pub struct WeightSource {
    origin: PathBuf,
    container: Container,
    style: NameStyle,
    /// Names of the model, and those that the same tensors may have instead.
    aliases: Vec<(String, String)>,
}

/// What a file says of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name in the file.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its numbers, e.g. `F16`.
    pub dtype: String,
    /// The file.
    pub file: PathBuf,
}

/// A tensor of the files that stands for one of the model.
enum Found<'a> {
    Whole(&'a str, &'a Stored),
    /// LAVIS's separate biases of queries and values.
    Biases([(String, &'a Stored); 2]),
    /// A third of the rows of one map for queries, keys and values.
    Third {
        name: &'a str,
        stored: &'a Stored,
        third: usize,
    },
}

impl WeightSource {
    /// Opens a file or a folder.
    ///
    /// # Errors
    /// No weights, a file that is damaged, or an index that does not fit its shards.
    pub fn open(path: &Path, style: NameStyle) -> Result<Self, ModelError> {
        let container = if path.is_dir() { folder::open(path) } else { open_file(path) };
        let container = container?.renamed(unwrapped);
        Ok(Self { origin: path.to_path_buf(), container, style, aliases: Vec::new() })
    }

    /// Reads the tensor `name` of the model under the name `other` where it is not there under its own: a
    /// table that is tied to another may be stored under either name.
    pub fn with_alias(mut self, name: &str, other: &str) -> Self {
        self.aliases.push((name.into(), other.into()));
        self
    }

    /// What the files say of their tensors; no values are read.
    pub fn tensors(&self) -> impl Iterator<Item = StoredTensor> {
        self.container.iter().map(|(_, stored)| StoredTensor {
            name: stored.name.clone(),
            shape: stored.shape.clone(),
            dtype: stored.encoding.name(),
            file: stored.path().to_path_buf(),
        })
    }

    /// Opens the weights of a Hugging Face folder or a GGUF file, whose names carry no prefix of another
    /// model.
    ///
    /// # Errors
    /// No weights, or files that cannot be read.
    pub fn open_huggingface(folder: &Path) -> Result<Self, ModelError> {
        Self::open(folder, NameStyle::hugging_face())
    }

    /// Opens published weights in whichever of the two spellings they are.
    ///
    /// # Errors
    /// No weights, or files that cannot be read.
    pub fn open_published(path: &Path) -> Result<Self, ModelError> {
        let mut source = Self::open_huggingface(path)?;
        let lavis = ["Qformer.", "ln_vision.", "visual_encoder.", "parameters."];
        if source.names().any(|name| lavis.iter().any(|start| name.starts_with(start))) {
            source.style = NameStyle::Lavis;
        }
        Ok(source)
    }

    /// Opens BERT's weights, whose head may store its bias and the word table under either of two names.
    ///
    /// # Errors
    /// No weights, or files that cannot be read.
    pub fn open_bert(path: &Path) -> Result<Self, ModelError> {
        Ok(Self::open(path, NameStyle::Lavis)?
            .with_alias("cls.predictions.bias", "cls.predictions.decoder.bias")
            .with_alias("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"))
    }

    /// The same files, whose names are written as `style` says.
    pub fn in_style(self, style: NameStyle) -> Self {
        Self { style, ..self }
    }

    /// Whether the names are LAVIS's.
    pub fn is_lavis(&self) -> bool {
        self.style == NameStyle::Lavis
    }

    /// The names in the files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.container.iter().map(|(name, _)| name)
    }

    /// Where the tensors come from.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Whether the model's tensor `name` is here under one of its spellings.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The shape of the tensor stored for the model's `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        match self.find(name)? {
            Found::Whole(_, stored) => Some(&stored.shape),
            Found::Biases(_) | Found::Third { .. } => None,
        }
    }

    fn find(&self, name: &str) -> Option<Found<'_>> {
        let others = self.aliases.iter().filter(|(own, _)| own == name).map(|(_, other)| other.as_str());
        for name in std::iter::once(name).chain(others) {
            for spelling in self.style.spellings(name) {
                if let Some((name, stored)) = self.container.entry(&spelling) {
                    return Some(Found::Whole(name, stored));
                }
            }
        }
        for (fused, third) in self.style.fused_map(name) {
            if let Some((name, stored)) = self.container.entry(&fused) {
                return Some(Found::Third { name, stored, third });
            }
        }
        self.style.fused_bias(name).into_iter().find_map(|[query, value]| {
            let (first, second) = (self.container.get(&query)?, self.container.get(&value)?);
            Some(Found::Biases([(query, first), (value, second)]))
        })
    }

    /// The values of the model's tensor `name` as float32, in row-major order.
    ///
    /// Dimensions of size one may be missing or additional in the file.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape, with its name and what was expected.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        match self.find(name) {
            Some(Found::Whole(_, stored)) => {
                self.check_shape(name, &stored.shape, shape)?;
                stored.values()
            }
            Some(Found::Biases([(query_name, query), (value_name, value)])) => {
                let third = [shape.iter().product::<usize>() / 3];
                self.check_shape(&query_name, &query.shape, &third)?;
                self.check_shape(&value_name, &value.shape, &third)?;
                let mut bias = query.values()?;
                bias.resize(2 * bias.len(), 0.0);
                bias.extend(value.values()?);
                Ok(bias)
            }
            Some(Found::Third { name, stored, third }) => {
                self.check_shape(name, &stored.shape, &threefold(shape))?;
                let values = stored.values()?;
                let length = values.len() / 3;
                Ok(values[third * length..][..length].to_vec())
            }
            None => Err(self.missing(name, shape)),
        }
    }

    /// Requires that the model's tensor `name` is there in a shape that [`WeightSource::read`] takes; reads
    /// no values.
    ///
    /// # Errors
    /// As [`WeightSource::read`].
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<(), ModelError> {
        match self.find(name) {
            Some(Found::Whole(_, stored)) => self.check_shape(name, &stored.shape, shape),
            Some(Found::Biases(biases)) => {
                let third = [shape.iter().product::<usize>() / 3];
                biases.iter().try_for_each(|(name, stored)| self.check_shape(name, &stored.shape, &third))
            }
            Some(Found::Third { name, stored, .. }) => {
                self.check_shape(name, &stored.shape, &threefold(shape))
            }
            None => Err(self.missing(name, shape)),
        }
    }

    fn check_shape(&self, name: &str, found: &[usize], expected: &[usize]) -> Result<(), ModelError> {
        let squeezed = |shape: &[usize]| shape.iter().copied().filter(|d| *d != 1).collect::<Vec<_>>();
        if squeezed(found) == squeezed(expected) {
            return Ok(());
        }
        Err(ModelError::Shape {
            origin: self.origin.display().to_string(),
            name: name.into(),
            found: found.to_vec(),
            expected: expected.to_vec(),
        })
    }

    fn missing(&self, name: &str, shape: &[usize]) -> ModelError {
        let tried = self.style.spellings(name);
        let hint = tried.first().and_then(|wanted| closest(wanted, self.names()));
        ModelError::MissingTensor {
            origin: self.origin.display().to_string(),
            name: name.into(),
            shape: shape.to_vec(),
            tried,
            hint: hint.map(|hint| format!("; the closest name there is `{hint}`")).unwrap_or_default(),
        }
    }

    /// Requires that every tensor of the files is one of the model's tensors `names`, is known to be of no
    /// use, fits one of the patterns `others`, or belongs to another part of a whole model.
    ///
    /// # Errors
    /// Tensors that are none of these, with the closest names of the model.
    pub fn check_unused(&self, names: &[String], others: &[&str]) -> Result<(), ModelError> {
        let mut used = BTreeSet::new();
        for name in names {
            match self.find(name) {
                Some(Found::Whole(stored, _) | Found::Third { name: stored, .. }) => {
                    used.insert(stored.to_string());
                }
                Some(Found::Biases(biases)) => used.extend(biases.map(|(name, _)| name)),
                None => {}
            }
        }
        let parts: BTreeSet<&str> = names.iter().map(|name| first_part(name)).collect();
        let unused = |stored: &&str| {
            let of = self.style.parts_of(stored);
            let elsewhere = !of.is_empty() && !of.iter().any(|part| parts.contains(part));
            let known = is_ignored(stored) || others.iter().any(|pattern| matches(pattern, stored));
            !(used.contains(*stored) || known || elsewhere)
        };
        let unexpected: Vec<&str> = self.names().filter(unused).collect();
        if unexpected.is_empty() {
            return Ok(());
        }
        Err(ModelError::UnexpectedTensors {
            origin: self.origin.display().to_string(),
            count: unexpected.len(),
            tensors: self.listed(&unexpected, names),
        })
    }

    /// The first of some names with their shapes and what the model has instead.
    fn listed(&self, unexpected: &[&str], names: &[String]) -> String {
        let spellings: Vec<String> =
            names.iter().filter_map(|name| self.style.spellings(name).into_iter().next()).collect();
        let describe = |name: &&str| {
            let shape = self.container.get(name).map(|stored| stored.shape.clone()).unwrap_or_default();
            let hint = closest(name, spellings.iter().map(String::as_str));
            let hint = hint.map(|hint| format!(" (the model has `{hint}`)")).unwrap_or_default();
            format!("`{name}` {shape:?}{hint}")
        };
        let mut listed: Vec<String> = unexpected.iter().take(LISTED).map(describe).collect();
        if unexpected.len() > LISTED {
            listed.push(format!("and {} more", unexpected.len() - LISTED));
        }
        listed.join(", ")
    }
}

/// A shape with three times as many rows.
fn threefold(shape: &[usize]) -> Vec<usize> {
    let rows = shape.first().map(|rows| 3 * rows);
    rows.into_iter().chain(shape.iter().skip(1).copied()).collect()
}

/// The name most like `wanted`, if one is alike at all.
fn closest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = names.map(|name| (strsim::normalized_levenshtein(wanted, name), name));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 >= SIMILAR).then_some(best.1)
}
