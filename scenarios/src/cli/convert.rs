//! `convert`: a checkpoint as a GGUF file.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use model::checkpoint::gguf::{Block, Types};

use super::{Blame, Outcome, PASS, engine_choice, print};
use crate::output;

/// The command `convert`.
#[derive(Args)]
#[command(after_help = "Blocks of 32 values: a row of another length becomes F16. Vectors and routers stay F32.")]
pub struct Convert {
    /// embedded:NAME, random:SHAPE, hf:org/name@revision, a Hugging Face folder or a GGUF file
    #[arg(long, value_name = "SOURCE")]
    model: String,
    /// f32, f16, bf16, q8_0, q4_0 or q4_1: how matrices are stored
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    r#type: String,
    /// The same for the embedding and the head [default: as the other matrices]
    #[arg(long, value_name = "TYPE")]
    ends: Option<String>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// The type called `name`; `flag` names it in errors.
fn block(flag: &str, name: &str) -> anyhow::Result<Block> {
    let found = Block::WRITTEN.into_iter().find(|block| block.name().eq_ignore_ascii_case(name));
    let known = Block::WRITTEN.map(|block| block.name().to_lowercase()).join(", ");
    found.ok_or_else(|| anyhow!("{flag}: `{name}` is not a type that can be written; expected {known}"))
}

impl Convert {
    pub(super) fn obey(&self) -> Outcome {
        let layers = block("--type", &self.r#type).usage()?;
        let ends = self.ends.as_deref().map_or(Ok(layers), |name| block("--ends", name)).usage()?;
        write(&self.model, Types { layers, ends }, &self.output)
    }
}

/// What `quantize --format gguf` does: every matrix in the type called `method`.
pub(super) fn quantize(model: &str, method: &str, output: &Path) -> Outcome {
    write(model, Types::all(block("--method with --format gguf", method).usage()?), output)
}

/// Writes `model` to the file `output`.
fn write(model: &str, types: Types, output: &Path) -> Outcome {
    if output.is_dir() {
        return Err(anyhow!("--output {}: is a folder; expected the name of a file", output.display())).usage();
    }
    if output.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        return Err(anyhow!("--output {}: there is no such folder to write into", output.display())).usage();
    }
    let checkpoint = engine_choice::open(model)?;
    let mut shown = std::io::stderr();
    let live = shown.is_terminal();
    let mut progress = |done: usize, all: usize| {
        if live {
            // progress that cannot be shown is not worth failing for
            let _ = write!(shown, "\r{done} of {all} tensors");
        }
    };
    checkpoint.write_gguf(output, types, &mut progress).failed()?;
    if live {
        output::note("");
    }
    print(&format!("{}\n", output.display()))?;
    Ok(PASS)
}
