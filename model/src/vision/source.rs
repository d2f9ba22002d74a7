//! Where an image encoder comes from, and what is known of it before its weights are read.

use std::path::{Path, PathBuf};

use super::{CLIP_VISION_PREFIX, ClipVisionConfig, EVA_PREFIX, EvaConfig};
use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;
use blip2_model_files::formats::is_weight_file;
use blip2_model_files::weights::{NameStyle, WeightSource};

/// LAVIS's files of an image encoder alone.
const PUBLISHED: &[&str] = &["eva_vit_g.pth", "clip_vit_L.pth"];

/// Heads of both of LAVIS's encoders; no shape tells them.
const HEADS: usize = 16;

/// Widths of a head in both, for files of other widths.
const EVA_HEAD: usize = 88;
const CLIP_HEAD: usize = 64;

/// Blocks that LAVIS keeps of EVA's 40 and of CLIP's 24.
const EVA_KEPT: usize = 39;
const CLIP_KEPT: usize = 23;

/// What a CLIP folder holds besides the layers of the vision tower.
const CLIP_OTHERS: &[&str] =
    &["*post_layernorm.*", "text_model.*", "text_projection.*", "visual_projection.*", "logit_scale"];

/// What EVA's file holds besides its blocks: the last norm and heads.
const EVA_OTHERS: &[&str] = &["norm.*", "fc_norm.*", "head.*", "lm_head.*", "mask_token", "rel_pos_bias.*"];

/// Sizes of an image encoder, by its layout.
#[derive(Debug, Clone, PartialEq)]
pub enum EncoderSizes {
    /// EVA's; the depth is that of the blocks used.
    Eva(EvaConfig),
    /// CLIP's; the depth is that of the whole tower, whose last layer is not used.
    Clip(ClipVisionConfig),
}

impl EncoderSizes {
    /// Width of a feature vector.
    pub fn width(&self) -> usize {
        match self {
            Self::Eva(sizes) => sizes.width,
            Self::Clip(sizes) => sizes.width,
        }
    }

    /// Side of the square image in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Eva(sizes) => sizes.image_size,
            Self::Clip(sizes) => sizes.image_size,
        }
    }

    /// Side of a patch in pixels.
    pub fn patch_size(&self) -> usize {
        match self {
            Self::Eva(sizes) => sizes.patch_size,
            Self::Clip(sizes) => sizes.patch_size,
        }
    }

    /// Feature vectors per image.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Eva(sizes) => sizes.tokens(),
            Self::Clip(sizes) => sizes.tokens(),
        }
    }

    /// The same for images of another size; 0: their own.
    ///
    /// # Errors
    /// A size that is no multiple of the patch.
    pub fn for_images_of(self, image_size: usize) -> Result<Self, ModelError> {
        if image_size == 0 {
            return Ok(self);
        }
        Ok(match self {
            Self::Eva(sizes) => {
                let sizes = EvaConfig { image_size, ..sizes };
                sizes.validate()?;
                Self::Eva(sizes)
            }
            // Looked at where the encoder is made.
            Self::Clip(sizes) => Self::Clip(ClipVisionConfig { image_size, ..sizes }),
        })
    }
}

/// An image encoder's files, opened.
#[derive(Debug)]
pub(super) struct EncoderSource {
    pub(super) sizes: EncoderSizes,
    pub(super) weights: WeightSource,
    /// Patterns of the tensors beside the encoder's.
    pub(super) others: Vec<String>,
}

/// The file of an encoder alone: the path itself, or the only weights in a folder without a `config.json`.
pub(super) fn bare_file(path: &Path) -> Option<PathBuf> {
    if !path.is_dir() {
        return Some(path.to_path_buf()).filter(|path| path.is_file());
    }
    if path.join("config.json").exists() {
        return None;
    }
    if let Some(file) = PUBLISHED.iter().map(|name| path.join(name)).find(|file| file.is_file()) {
        return Some(file);
    }
    let files = std::fs::read_dir(path).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = files.filter(|file| file.is_file() && is_weight_file(file)).collect();
    files.pop().filter(|_| files.is_empty())
}

/// Sizes of the encoder in a folder or file; of a file, its shapes are read.
pub(super) fn sizes(path: &Path) -> Result<EncoderSizes, ModelError> {
    match bare_file(path) {
        Some(file) => Ok(of_file(&file)?.sizes),
        None => of_config(&FolderConfig::open(path)?),
    }
}

/// Opens the files of an encoder and reads its sizes.
pub(super) fn open(path: &Path) -> Result<EncoderSource, ModelError> {
    if let Some(file) = bare_file(path) {
        return of_file(&file);
    }
    let sizes = of_config(&FolderConfig::open(path)?)?;
    let weights = WeightSource::open_huggingface(path)?;
    let eva_file = ["patch_embed.proj.weight", "visual_encoder.patch_embed.proj.weight"];
    let clip_file = openai_tower(&weights);
    Ok(match &sizes {
        EncoderSizes::Eva(config) if weights.names().any(|name| eva_file.contains(&name)) => {
            let others =
                dropped("blocks", config.depth, eva_blocks(&weights)).chain(owned(EVA_OTHERS)).collect();
            EncoderSource { weights: weights.in_style(NameStyle::Lavis), others, sizes }
        }
        EncoderSizes::Clip(config) => match clip_file {
            Some(prefix) => openai(weights, prefix, config.clone()),
            None => {
                let last = config.depth.saturating_sub(1);
                let others = owned(CLIP_OTHERS).chain([format!("*encoder.layers.{last}.*")]).collect();
                EncoderSource { weights, others, sizes }
            }
        },
        EncoderSizes::Eva(_) => EncoderSource { weights, others: Vec::new(), sizes },
    })
}

fn of_config(config: &FolderConfig) -> Result<EncoderSizes, ModelError> {
    match config.model_type() {
        "blip_2_vision_model" | "instructblip_vision_model" => of_eva(config, None),
        "blip-2" | "instructblip" => of_eva(config, Some("vision_config")),
        "clip_vision_model" => Ok(EncoderSizes::Clip(config.parse()?)),
        "clip" => Ok(EncoderSizes::Clip(config.parse_section("vision_config")?)),
        other => Err(config.error(format!(
            "model_type `{other}` is not an image encoder this program has; it has `blip_2_vision_model`, `blip-2`, \
             `instructblip`, `clip` and `clip_vision_model`"
        ))),
    }
}

fn of_eva(config: &FolderConfig, section: Option<&str>) -> Result<EncoderSizes, ModelError> {
    config.require(section, "hidden_act", &"gelu".into())?;
    config.require(section, "qkv_bias", &true.into())?;
    let sizes: EvaConfig = config.parse_part(section)?;
    sizes.validate().map_err(|error| config.error(error.to_string()))?;
    Ok(EncoderSizes::Eva(sizes))
}

/// What the shapes in a file of an encoder say.
fn of_file(file: &Path) -> Result<EncoderSource, ModelError> {
    let weights = WeightSource::open(file, NameStyle::Lavis)?;
    if let Some(prefix) = openai_tower(&weights) {
        return of_openai(weights, prefix);
    }
    let shape = |name: &str| weights.shape(&format!("{EVA_PREFIX}.{name}")).map(<[usize]>::to_vec);
    let (Some(patch), Some(table), Some(inner)) =
        (shape("patch_embed.proj.weight"), shape("pos_embed"), shape("blocks.0.mlp.fc1.weight"))
    else {
        return Err(refuse(
            file,
            "no image encoder: it has neither EVA's `patch_embed.proj.weight`, `pos_embed` and blocks nor CLIP's \
             `conv1.weight`",
        ));
    };
    let (blocks, whole) =
        (eva_blocks(&weights), weights.names().any(|name| name.starts_with("visual_encoder.")));
    let depth = if whole || blocks == EVA_KEPT { blocks } else { blocks.saturating_sub(1) };
    let (width, patch_size, image_size) = sides(file, &patch, &table)?;
    let sizes = EvaConfig {
        width,
        depth,
        heads: heads(width, EVA_HEAD),
        intermediate: inner[0],
        image_size,
        patch_size,
        ..EvaConfig::default()
    };
    sizes.validate().map_err(|error| refuse(file, &error.to_string()))?;
    let others = dropped("blocks", depth, blocks).chain(owned(EVA_OTHERS)).collect();
    Ok(EncoderSource { sizes: EncoderSizes::Eva(sizes), weights, others })
}

fn of_openai(weights: WeightSource, prefix: String) -> Result<EncoderSource, ModelError> {
    let file = weights.origin().to_path_buf();
    let weights = weights.in_style(NameStyle::OpenAiClip { prefix: prefix.clone() });
    let shape = |name: &str| weights.shape(&format!("{CLIP_VISION_PREFIX}.{name}")).map(<[usize]>::to_vec);
    let (Some(patch), Some(table), Some(inner)) = (
        shape("embeddings.patch_embedding.weight"),
        shape("embeddings.position_embedding.weight"),
        shape("encoder.layers.0.mlp.fc1.weight"),
    ) else {
        return Err(refuse(&file, "no image tower of CLIP: positions or layers are missing"));
    };
    let layers = blocks(&weights, &format!("{prefix}transformer.resblocks."));
    let whole = layers == CLIP_KEPT || prefix == "visual_encoder.";
    let (width, patch_size, image_size) = sides(&file, &patch, &table)?;
    let sizes = ClipVisionConfig {
        width,
        depth: if whole { layers + 1 } else { layers },
        heads: heads(width, CLIP_HEAD),
        intermediate: inner[0],
        image_size,
        patch_size,
        ..ClipVisionConfig::default()
    };
    Ok(openai(weights, prefix, sizes))
}

fn openai(weights: WeightSource, prefix: String, sizes: ClipVisionConfig) -> EncoderSource {
    let layers = blocks(&weights, &format!("{prefix}transformer.resblocks."));
    let mut others: Vec<String> =
        dropped(&format!("{prefix}transformer.resblocks"), sizes.depth.saturating_sub(1), layers).collect();
    others.extend(["ln_post.*", "proj"].map(|name| format!("{prefix}{name}")));
    // What is outside the tower: the text tower and the scale, or the rest of LAVIS's model.
    others.extend(weights.names().filter(|name| !name.starts_with(&prefix)).map(str::to_string));
    let weights = weights.in_style(NameStyle::OpenAiClip { prefix });
    EncoderSource { sizes: EncoderSizes::Clip(sizes), weights, others }
}

/// How the names of CLIP's image tower begin, in OpenAI's words, if it is there.
fn openai_tower(weights: &WeightSource) -> Option<String> {
    let known = ["", "visual.", "visual_encoder."];
    weights.names().find_map(|name| {
        name.strip_suffix("conv1.weight").filter(|prefix| known.contains(prefix)).map(str::to_string)
    })
}

/// Width, and the sides of a patch and of the image in pixels.
fn sides(file: &Path, patch: &[usize], table: &[usize]) -> Result<(usize, usize, usize), ModelError> {
    let rows = table.iter().rev().nth(1).copied().unwrap_or_default();
    let ([width, 3, side, _], grid) = (patch, rows.saturating_sub(1).isqrt()) else {
        return Err(refuse(file, &format!("patches of shape {patch:?}: pictures have three channels")));
    };
    if grid == 0 || grid * grid + 1 != rows {
        return Err(refuse(
            file,
            &format!("{rows} positions are not those of a square of patches and a class token"),
        ));
    }
    Ok((*width, *side, grid * side))
}

fn heads(width: usize, head: usize) -> usize {
    if width.is_multiple_of(HEADS) { HEADS } else { width / head }
}

fn eva_blocks(weights: &WeightSource) -> usize {
    blocks(weights, "blocks.").max(blocks(weights, "visual_encoder.blocks."))
}

/// Blocks whose names begin with `prefix` and a number.
fn blocks(weights: &WeightSource, prefix: &str) -> usize {
    let number = |name: &str| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok();
    weights.names().filter_map(number).max().map_or(0, |last| last + 1)
}

/// Patterns of blocks that are there and not used.
fn dropped(stem: &str, kept: usize, blocks: usize) -> impl Iterator<Item = String> {
    let stem = stem.to_string();
    (kept..blocks).map(move |block| format!("{stem}.{block}.*"))
}

fn owned(patterns: &'static [&'static str]) -> impl Iterator<Item = String> {
    patterns.iter().copied().map(str::to_string)
}

fn refuse(file: &Path, reason: &str) -> ModelError {
    ModelError::Format { path: file.into(), reason: reason.into() }
}

impl EncoderSource {
    /// How the encoder's names begin.
    pub(super) fn prefix(&self) -> &'static str {
        match self.sizes {
            EncoderSizes::Eva(_) => EVA_PREFIX,
            EncoderSizes::Clip(_) => CLIP_VISION_PREFIX,
        }
    }

    /// The patterns of other tensors.
    pub(super) fn others(&self) -> Vec<&str> {
        self.others.iter().map(String::as_str).collect()
    }
}
