//! Kernels in PTX as C, so that the host's compiler makes code of them that the host can run.
//!
//! A register is a variable, a label a label, an instruction a statement; what takes more stands in
//! `machine.h`. An instruction that is not known here refuses the module: nothing is left out in silence.

mod instruction;
mod registers;
mod syntax;

use std::fmt::Write as _;

use syntax::{Constant, Entry, Statement};

/// What every translated module begins with.
const MACHINE: &str = include_str!("machine.h");

/// The function of a translated module that tells where its constants start and end.
pub(crate) const CONSTANTS: &str = "constants_of_module";

/// A module in C, and what it has.
pub(crate) struct Translation {
    pub(crate) source: String,
    pub(crate) kernels: Vec<Kernel>,
}

/// Before the name of a kernel in C, so that none is that of another function.
pub(crate) const PREFIX: &str = "kernel_of_";

/// One kernel: a C function of a thread and of the addresses of its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    /// Threads of a block, where the module says how many.
    pub(crate) threads: Option<[u32; 3]>,
    /// Whether threads wait for each other.
    pub(crate) waits: bool,
}

/// The module in C, or what in it is not known.
pub(crate) fn translate(module: &str) -> Result<Translation, String> {
    let module = syntax::without_comments(module);
    let entries = syntax::entries(&module)?;
    let constants = syntax::constants(&module)?;
    let mut source = String::from(MACHINE);
    write_constants(&mut source, &constants);
    let mut kernels = Vec::new();
    for entry in &entries {
        write_kernel(&mut source, entry, &constants).map_err(|reason| format!("{}: {reason}", entry.name))?;
        kernels.push(Kernel {
            name: entry.name.to_owned(),
            threads: entry.threads,
            waits: entry.statements.iter().any(waits),
        });
    }
    Ok(Translation { source, kernels })
}

fn waits(statement: &Statement<'_>) -> bool {
    match statement {
        Statement::Instruction(instruction) => {
            matches!(instruction.opcode[..], ["bar", ..] | ["wmma", "mma", ..])
        }
        Statement::Label(_) | Statement::Declaration { .. } => false,
    }
}

/// All constants lie together, between the addresses that [`CONSTANTS`] tells.
fn write_constants(source: &mut String, constants: &[Constant<'_>]) {
    let (mut members, mut values) = (String::new(), String::new());
    for Constant { name, alignment, bytes } in constants {
        let number = bytes.split(',').count();
        let _ = write!(members, " _Alignas({alignment}) uint8_t {name}[{number}];");
        let _ = write!(values, " .{name} = {{{bytes}}},");
    }
    let _ = writeln!(source, "\nstatic const struct {{ uint8_t first;{members} }} all = {{{values} }};");
    let _ = writeln!(
        source,
        "void {CONSTANTS}(uint64_t *start, uint64_t *end) {{ *start = (uint64_t)&all, *end = (uint64_t)(&all + 1); }}"
    );
}

fn write_kernel(source: &mut String, entry: &Entry<'_>, constants: &[Constant<'_>]) -> Result<(), String> {
    let mut line = |text: String| {
        source.push_str(&text);
        source.push('\n');
    };
    line(format!("\nvoid {PREFIX}{}(struct thread *t, void **parameters) {{", entry.name));
    line("uint64_t cube_shared = t->shared; bool carry = false;".into());
    for Constant { name, .. } in constants {
        line(format!("uint64_t {name} = (uint64_t)all.{name};"));
    }
    for (place, name) in entry.parameters.iter().enumerate() {
        line(format!("uint64_t {name} = (uint64_t)parameters[{place}];"));
    }
    for statement in &entry.statements {
        line(match statement {
            Statement::Label(label) => format!("{label}:;"),
            Statement::Declaration { directive, words } => {
                declaration(directive, words).ok_or_else(|| format!("{directive} {}", words.join(" ")))?
            }
            Statement::Instruction(instruction) => instruction::in_c(instruction)?,
        });
    }
    line("}".into());
    Ok(())
}

/// Registers and what a thread has for itself.
fn declaration(directive: &str, words: &[&str]) -> Option<String> {
    match (directive, words) {
        (".reg", [of, registers]) => {
            let of = match *of {
                ".pred" => "bool",
                ".b16" => "uint16_t",
                ".b32" => "uint32_t",
                ".b64" => "uint64_t",
                _ => return None,
            };
            let registers = registers.strip_prefix('%')?;
            let Some((name, number)) = registers.strip_suffix('>').and_then(|text| text.split_once('<'))
            else {
                return Some(format!("{of} {registers} = 0;"));
            };
            let mut text = String::from(of);
            for register in 1..number.parse().ok()? {
                let comma = if register == 1 { "" } else { "," };
                let _ = write!(text, "{comma} {name}{register} = 0");
            }
            text.push(';');
            Some(text)
        }
        (".local", [".align", align, ".b8", name]) => {
            let (name, bytes) = name.strip_suffix(']')?.split_once('[')?;
            Some(format!(
                "_Alignas({align}) uint8_t {name}_bytes[{bytes}]; uint64_t {name} = (uint64_t){name}_bytes;"
            ))
        }
        // How the card's compiler is to go about it.
        (".pragma", _) => Some(String::new()),
        _ => None,
    }
}
