//! What the text of a kernel says of its numbers: products in fewer bits than float32 has, and sums in the
//! order in which threads happen to arrive. And whether it is there to be timed, as where kernels are chosen
//! by a stopwatch.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use crate::files::read;

/// Numbers that are put into the matrix units in the place of float32.
const TF32: &str = "tf32";

/// What the names of cubecl's measurements have.
const MEASURING: &str = "throughput";

/// What some kernels do with their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Kernels that were read.
    pub(crate) kernels: usize,
    /// Kernels with matrix instructions on TF32.
    pub(crate) tf32: usize,
    /// Kernels with other matrix instructions: on bf16 or f16.
    pub(crate) half: usize,
    /// Kernels with an atomic operation whose result depends on the order of the threads.
    pub(crate) unordered: usize,
    /// Those operations.
    pub(crate) unordered_operations: BTreeSet<String>,
    /// Kernels that measure how fast the device is, which a search among kernels begins with.
    pub(crate) measuring: usize,
    /// Instructions that are good to fewer bits than IEEE 754 asks for.
    pub(crate) approximate: BTreeSet<String>,
}

impl Numbers {
    /// Those of files of PTX.
    pub(crate) fn of_files<P: AsRef<Path>>(files: &[P]) -> Result<Self, String> {
        let mut numbers = Self::default();
        for file in files.iter().map(AsRef::as_ref) {
            numbers.add(&read(file)?);
        }
        Ok(numbers)
    }

    /// Adds one module.
    pub(crate) fn add(&mut self, ptx: &str) {
        let parts = |instruction: &str| instruction.split('.').map(str::to_owned).collect::<Vec<_>>();
        let (mut tf32, mut half, mut unordered) = (false, false, false);
        for instruction in instructions(ptx) {
            let parts = parts(instruction);
            let has = |part: &str| parts.iter().any(|own| own == part);
            if is_matrix(&parts) {
                tf32 |= has(TF32);
                half |= !has(TF32);
            }
            if is_unordered(&parts) {
                unordered = true;
                self.unordered_operations.insert(instruction.to_owned());
            }
            if has("approx") || has("full") {
                self.approximate.insert(instruction.to_owned());
            }
        }
        let measures = |line: &str| line.contains(".entry") && line.contains(MEASURING);
        self.measuring += usize::from(ptx.lines().any(measures));
        self.kernels += 1;
        self.tf32 += usize::from(tf32);
        self.half += usize::from(half);
        self.unordered += usize::from(unordered);
    }

    /// Whether all products of float32 are in float32, all sums have an order, and nothing was timed.
    pub(crate) fn are_exact(&self) -> bool {
        self.tf32 == 0 && self.unordered == 0 && self.measuring == 0
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |names: &BTreeSet<String>| match names.is_empty() {
            true => "none".to_owned(),
            false => names.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
        };
        write!(
            f,
            "{} kernels: {} with products in TF32, {} in bf16 or f16, {} with atomics whose order counts ({}), \
             {} that measure the device; approximate instructions: {}",
            self.kernels,
            self.tf32,
            self.half,
            self.unordered,
            listed(&self.unordered_operations),
            self.measuring,
            listed(&self.approximate),
        )
    }
}

/// A product of the matrix units.
fn is_matrix(parts: &[String]) -> bool {
    let mnemonic = |own: &str| parts.iter().any(|part| part == own);
    mnemonic("mma") || mnemonic("mma_async")
}

/// An atomic operation whose result depends on who comes first: sums of floating-point numbers, and
/// exchanges, of which such sums are made where there is no instruction.
fn is_unordered(parts: &[String]) -> bool {
    let is_atomic = matches!(parts[0].as_str(), "atom" | "red" | "multimem");
    let has = |names: &[&str]| parts.iter().any(|part| names.contains(&part.as_str()));
    let floating = has(&["f16", "f16x2", "bf16", "bf16x2", "f32", "f64"]);
    is_atomic && (has(&["cas", "exch"]) || (has(&["add"]) && floating))
}

/// The instructions of a module with all their suffixes, without operands.
fn instructions(ptx: &str) -> impl Iterator<Item = &str> {
    let statements = ptx.lines().flat_map(|line| {
        let code = line.split("//").next().unwrap_or_default();
        code.split([';', '{', '}'])
    });
    statements.filter_map(|statement| {
        let mut words =
            statement.split_whitespace().skip_while(|word| word.starts_with('@') || word.ends_with(':'));
        words.next().filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ptx: &str) -> Numbers {
        let mut numbers = Numbers::default();
        numbers.add(ptx);
        numbers
    }

    /// A module around these instructions, as LLVM writes it.
    fn module(body: &str) -> String {
        format!(
            "//\n// Generated by LLVM NVPTX Back-End: atom.add.f32 tf32\n//\n\n.version 8.6\n.target sm_90a\n\
             .address_size 64\n\n.visible .entry k(\n\t.param .u64 .ptr .global .align 16 k_param_0\n)\n{{\n\
             \t.reg .b32 \t%r<9>;\n\t.reg .f32 \t%tf32<2>;\n\n// %bb.0:\n{body}\n\tret;\n}}\n"
        )
    }

    #[test]
    fn products_are_told_by_their_operands() {
        for (body, tf32, half) in [
            ("\tfma.rn.f32 \t%f3, %f1, %f2, %f3;", 0, 0),
            (
                "\twmma.mma.sync.aligned.row.col.m16n16k8.f32.tf32.tf32.f32 \t{%f1, %f2}, {%r1}, {%r2}, {%f1, %f2};",
                1,
                0,
            ),
            ("\tmma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1}, {%r1}, {%r2}, {%f1};", 1, 0),
            (
                "$L__BB0_2: @%p1 wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%f1}, %rd1, %rd2, 1, 1, 1;",
                1,
                0,
            ),
            ("\tmma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};", 0, 1),
            // Where it is not said, the operands are f16.
            ("\twmma.mma.sync.aligned.row.row.m16n16k16.f32.f32 {%f1}, {%r1}, {%r2}, {%f1};", 0, 1),
            // A number that is rounded is no product.
            ("\tcvt.rna.tf32.f32 \t%r1, %f1;", 0, 0),
        ] {
            let numbers = of(&module(body));
            assert_eq!((numbers.tf32, numbers.half, numbers.unordered), (tf32, half, 0), "{body}");
            assert_eq!(numbers.are_exact(), tf32 == 0, "{body}");
        }
    }

    #[test]
    fn atomics_are_told_by_whether_their_order_counts() {
        for (body, unordered) in [
            ("\tatom.global.gpu.relaxed.add.f32 \t%f1, [%rd1], %f2;", true),
            ("\tatom.relaxed.gpu.global.add.noftz.bf16 \t%rs1, [%rd1], %rs2;", true),
            ("\t@!%p1 red.global.add.f32 \t[%rd1], %f2;", true),
            ("{ red.shared.add.f64 [%r1], %fd1; }", true),
            ("\tatom.global.cas.b32 \t%r1, [%rd1], %r2, %r3;", true),
            ("\tatom.global.exch.b32 \t%r1, [%rd1], %r2;", true),
            ("\tatom.global.add.u32 \t%r1, [%rd1], 1;", false),
            ("\tred.global.max.s32 \t[%rd1], %r1;", false),
            ("\tredux.sync.add.s32 \t%r1, %r2, -1;", false),
            ("\tadd.rn.f32 \t%f1, %f2, %f3; // atom.add.f32", false),
        ] {
            let numbers = of(&module(body));
            assert_eq!(numbers.unordered, usize::from(unordered), "{body}");
            assert_eq!(numbers.unordered_operations.len(), usize::from(unordered), "{body}");
            assert_eq!(numbers.are_exact(), !unordered, "{body}");
        }
    }

    #[test]
    fn kernels_are_counted_once_and_named_operations_listed_once() {
        let twice = "\tred.global.add.f32 [%rd1], %f2;\n\tred.global.add.f32 [%rd2], %f2;\n\tex2.approx.ftz.f32 %f1, %f2;";
        let mut numbers = of(&module(twice));
        numbers.add(&module("\tdiv.full.f32 %f1, %f2, %f3;"));
        assert_eq!((numbers.kernels, numbers.unordered), (2, 1));
        assert_eq!(
            numbers.to_string(),
            "2 kernels: 0 with products in TF32, 0 in bf16 or f16, 1 with atomics whose order counts \
             (red.global.add.f32), 0 that measure the device; approximate instructions: div.full.f32, ex2.approx.ftz.f32"
        );
        let measures = module("").replace("entry k(", "entry compute_direct_throughput_i_f32_n_2_03c31c5e(");
        assert!(of(&module("")).are_exact() && !of(&measures).are_exact());
        assert!(Numbers::of_files(&["/nowhere/k.ptx"]).unwrap_err().contains("/nowhere/k.ptx"));
    }
}
