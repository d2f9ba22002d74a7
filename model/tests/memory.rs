//! Loading takes little more memory than the tensors that it keeps, whatever the file and its numbers.

#![expect(clippy::disallowed_macros, reason = "a test's own words")]

use std::path::{Path, PathBuf};

use blip2_model::blip2::export::{Precision, export_lavis};
use blip2_model_files::weights::{NameStyle, WeightSource, load};
use blip2_tensors::nn::layers::Linear;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};
use blip2_tensors::train::flat::FlatLayout;
use burn::tensor::Device;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Largest memory while loading over that of the tensors kept.
const MOST: f64 = 1.15;

/// Maps of a megabyte each, and a last one as large as a quarter of the others: an output map.
struct Maps(Vec<Linear>);

impl Maps {
    fn new(device: &Device) -> Self {
        let mut maps: Vec<Linear> = (0..32).map(|_| Linear::new(512, 512, true, device)).collect();
        maps.push(Linear::new(512, 4096, false, device));
        Self(maps)
    }
}

impl NamedTensors for Maps {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        for (index, map) in self.0.iter_mut().enumerate() {
            map.visit_tensors(&join(prefix, &format!("maps.{index}")), visitor)?;
        }
        Ok(())
    }
}

fn write(folder: &Path, ending: &str, precision: Precision) -> PathBuf {
    let device = Device::flex();
    let mut maps = Maps::new(&device);
    let layout = FlatLayout::of(&mut maps).unwrap();
    let flat: Vec<f32> = (0..layout.len()).map(|i| (i % 8192) as f32 / 64.0).collect();
    layout.write(&mut maps, &flat, &device).unwrap();
    let file = folder.join(format!("{precision:?}.{ending}"));
    export_lavis(&file, &mut maps, Some("opt_model"), precision).unwrap();
    file
}

#[test]
fn the_peak_is_that_of_the_tensors_kept() {
    let folder = tempfile::tempdir().unwrap();
    for ending in ["safetensors", "pth"] {
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            let file = write(folder.path(), ending, precision);
            let device = Device::flex();
            let mut maps = Maps::new(&device);
            let kept = 4 * FlatLayout::of(&mut maps).unwrap().len();
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let source = WeightSource::open(&file, NameStyle::Lavis).unwrap();
            load(&mut maps, "", &source, &device).unwrap();
            let peak = MEMORY.peak_usage() - before;
            let ratio = peak as f64 / kept as f64;
            eprintln!("{ending} {precision:?}: {ratio:.3}");
            assert!(ratio <= MOST, "{ending} {precision:?}: {peak} bytes to keep {kept}");
            assert!(ratio >= 1.0, "the tensors are kept");
        }
    }
}
