//! Files as `torch.save` writes them: an archive with a pickle and the tensors' numbers.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::plan::{Plan, Target, TensorFiles, pour};
use super::precision::Precision;
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::tensors::NamedTensors;

/// The folder inside the archive; PyTorch takes any name.
const ROOT: &str = "archive";

/// Writes the tensors of `plan` to `path` as `{"model": state dictionary}`, the layout of LAVIS's
/// checkpoints, which `torch.load(path, weights_only=True)` takes.
pub(super) fn write(path: &Path, model: &mut impl NamedTensors, plan: &Plan) -> Result<(), ModelError> {
    let file = File::create(path).map_err(|e| ModelError::io(path, e))?;
    let mut writer =
        Writer { path: path.to_path_buf(), archive: ZipWriter::new(BufWriter::new(file)), next: 0 };
    writer.entry("data.pkl", &pickle(plan))?;
    writer.entry("byteorder", b"little")?;
    pour(model, plan, &mut writer)?;
    writer.entry("version", b"3\n")?;
    let file = writer.archive.finish().map_err(|e| ModelError::io(path, e.into()))?;
    let synced = file.into_inner().map_err(std::io::IntoInnerError::into_error);
    synced.and_then(|file| file.sync_all()).map_err(|e| ModelError::io(path, e))
}

struct Writer {
    path: PathBuf,
    archive: ZipWriter<BufWriter<File>>,
    /// Number of the next tensor's entry.
    next: usize,
}

impl Writer {
    fn start(&mut self, name: &str) -> Result<(), ModelError> {
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
        let started = self.archive.start_file(format!("{ROOT}/{name}"), options);
        started.map_err(|e| ModelError::io(&self.path, e.into()))
    }

    fn entry(&mut self, name: &str, bytes: &[u8]) -> Result<(), ModelError> {
        self.start(name)?;
        self.put(bytes)
    }
}

impl TensorFiles for Writer {
    fn begin(&mut self, _target: &Target) -> Result<(), ModelError> {
        let name = format!("data/{}", self.next);
        self.next += 1;
        self.start(&name)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        self.archive.write_all(bytes).map_err(|e| ModelError::io(&self.path, e))
    }
}

/// PyTorch's class of the numbers.
fn storage(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "FloatStorage",
        Precision::F16 => "HalfStorage",
        Precision::Bf16 => "BFloat16Storage",
    }
}

/// The dictionary in pickle's protocol 2.
fn pickle(plan: &Plan) -> Vec<u8> {
    let mut pickle = Pickle(vec![0x80, 2]);
    pickle.empty_dictionary();
    pickle.mark();
    pickle.text("model");
    pickle.ordered_dictionary();
    pickle.mark();
    for (number, target) in plan.targets().enumerate() {
        pickle.text(&target.name);
        pickle.tensor(number, target, storage(plan.precision));
    }
    pickle.set_items();
    pickle.set_items();
    pickle.0.push(b'.');
    pickle.0
}

/// Instructions of the pickle machine.
struct Pickle(Vec<u8>);

impl Pickle {
    fn empty_dictionary(&mut self) {
        self.0.push(b'}');
    }

    fn mark(&mut self) {
        self.0.push(b'(');
    }

    fn set_items(&mut self) {
        self.0.push(b'u');
    }

    fn class(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").bytes());
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.bytes());
    }

    /// An integer that is not negative.
    fn integer(&mut self, value: usize) {
        match i32::try_from(value) {
            Ok(value) => {
                self.0.push(b'J');
                self.0.extend(value.to_le_bytes());
            }
            // As many bytes as follow, the last of which keeps the sign clear.
            Err(_) => {
                self.0.extend([0x8a, 9]);
                self.0.extend((value as u64).to_le_bytes());
                self.0.push(0);
            }
        }
    }

    fn tuple(&mut self, values: &[usize]) {
        self.mark();
        values.iter().for_each(|value| self.integer(*value));
        self.0.push(b't');
    }

    /// `collections.OrderedDict()`.
    fn ordered_dictionary(&mut self) {
        self.class("collections", "OrderedDict");
        self.0.extend(b")R");
    }

    /// A contiguous tensor that has the numbers of entry `number` for itself.
    fn tensor(&mut self, number: usize, target: &Target, storage: &str) {
        self.class("torch._utils", "_rebuild_tensor_v2");
        self.mark();
        self.mark();
        self.text("storage");
        self.class("torch", storage);
        self.text(&number.to_string());
        self.text("cpu");
        self.integer(target.len());
        self.0.extend(b"tQ");
        self.integer(0);
        self.tuple(&target.shape);
        let mut strides = vec![1; target.shape.len()];
        for at in (1..strides.len()).rev() {
            strides[at - 1] = strides[at] * target.shape[at];
        }
        self.tuple(&strides);
        // No gradient, no hooks.
        self.0.push(0x89);
        self.ordered_dictionary();
        self.0.extend(b"tR");
    }
}
