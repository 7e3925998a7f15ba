//! `quantize`: a checkpoint becomes a smaller one that other programs read too.

mod quality;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use engine::quantize::{CheckpointFormat, FolderWriter, QuantizeOptions, Sealed, quantize_layers};
use engine::{Bos, Checkpoint, DeviceSpec, EngineError};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::TokenId;
use model::checkpoint::CheckpointError;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use toml::{Table, Value};
use weights::WeightsSpec;

use self::quality::{Calibrated, Quality, Scored};
use super::engine_choice::{bos, open, thread_count};
use super::{Blame, Failure, Outcome, PASS, convert, overrides, print};
use crate::scenario::Parts;
use crate::stopwatch::Stopwatch;
use crate::{library, machine, text};

/// How matrices are stored in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// AutoGPTQ's layout, which GPTQModel, transformers and vLLM read
    Gptq,
    /// GPTQModel's second version: zeros stored as they are
    GptqV2,
    /// AutoAWQ's GEMM layout
    Awq,
    /// Plain f16 with the rounded values
    Safetensors,
    /// One file for llama.cpp; METHOD is its type: f16, bf16, f32, q8_0, q4_0 or q4_1
    Gguf,
}

/// The command `quantize`.
#[derive(Args)]
#[command(after_help = "Example:
  infermark quantize --model embedded:base --method gptq --bits 4 --group 128 --format gptq --output base-gptq
  infermark perplexity --model base-gptq --weights stored

One layer is held at a time, so the model may be larger than memory. The folder appears under its name when it is whole; \
until then it is NAME.unfinished. Inside: weights, config, tokenizer, and quality.txt, .csv and .json.")]
pub struct Quantize {
    /// embedded:NAME, random:SHAPE, hf:org/name@revision, a Hugging Face folder or a GGUF file
    #[arg(long, value_name = "SOURCE")]
    model: String,
    /// rtn, gptq, any other kind of weights, or a table such as '{ kind = "gptq", bits = 4, damping = 0.05 }'
    #[arg(long, value_name = "KIND", default_value = "gptq")]
    method: String,
    /// Bits per weight
    #[arg(long, value_name = "N")]
    bits: Option<u8>,
    /// Columns that share a scale, or "row"
    #[arg(long, value_name = "N")]
    group: Option<String>,
    /// Zero is the middle code: no zero points
    #[arg(long)]
    symmetric: bool,
    /// Columns in the order of their importance [default: true for gptq]. It costs no time and, with static groups, nothing when
    /// the weights are read; on small models plain order can lose more than rounding to nearest
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    act_order: Option<bool>,
    /// Grids fitted before the first column, groups in input order, so that every reader of the layout takes the codes
    /// [default: true for gptq]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    static_groups: Option<bool>,
    /// Added to the Hessian's diagonal, as a fraction of its mean
    #[arg(long, value_name = "X")]
    damping: Option<f64>,
    /// The token that begins a text: auto (as the tokenizer's template or the GGUF keys say), always, never
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = bos)]
    bos: Bos,
    /// Text to calibrate on
    #[arg(long, value_name = "TEXT", default_value = "embedded:calibration")]
    calibration: String,
    /// Windows of the calibration text, drawn anywhere in it; a text with fewer gives each of its own once. Time grows with
    /// their number
    #[arg(long, value_name = "N", default_value_t = 64)]
    windows: usize,
    /// Tokens per window
    #[arg(long, value_name = "N", default_value_t = 512)]
    window_tokens: usize,
    /// Where the windows start
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Text whose perplexity is measured before and after, or "none"
    #[arg(long, value_name = "TEXT", default_value = "embedded:evaluation")]
    text: String,
    /// Disjoint windows of that text, at most
    #[arg(long, value_name = "N", default_value_t = 32)]
    text_windows: usize,
    /// Layout of the weights [default: awq for awq at 4 bits, gptq otherwise]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Folder to make, which must not exist; for gguf the file
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Replace the file of --format gguf if it exists
    #[arg(long)]
    force: bool,
    /// Largest weight file, MiB
    #[arg(long, value_name = "N", default_value_t = 4096)]
    shard_mib: u64,
    /// Worker threads [default: the physical cores]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

impl Quantize {
    /// The layout asked for, or the one that the tools of the method `weights` write.
    fn layout(&self, weights: &WeightsSpec) -> Format {
        let four = weights.group_grid().is_some_and(|grid| grid.bits == 4);
        let own = if matches!(weights, WeightsSpec::Awq(_)) && four { Format::Awq } else { Format::Gptq };
        self.format.unwrap_or(own)
    }

    pub(super) fn obey(&self) -> Outcome {
        let clock = Stopwatch::start();
        if self.format == Some(Format::Gguf) {
            return convert::quantize(&self.model, &self.method, &self.output, self.force);
        }
        let weights = self.weights()?;
        let layout = self.layout(&weights);
        let format = match layout {
            Format::Gptq => CheckpointFormat::Gptq { v2: false },
            Format::GptqV2 => CheckpointFormat::Gptq { v2: true },
            Format::Awq => CheckpointFormat::Awq,
            Format::Safetensors | Format::Gguf => CheckpointFormat::F16,
        };
        let checkpoint = open(&self.model)?.with_bos(self.bos).with_half_tables();
        let side = checkpoint.side_files(&library::models()).usage()?;
        let device = DeviceSpec::default().open(self.threads.unwrap_or_else(machine::default_threads)).usage()?;
        let calibration = self.calibration(&checkpoint, &weights)?;
        let scored = self.scored(&checkpoint)?;
        let mut writer =
            FolderWriter::new(&checkpoint, &weights, format, &self.output, self.shard_mib.max(1) << 20).usage()?;
        let bar = progress_bar();
        let mut progress = |done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        };
        let (calibration, scored) = (&calibration[..], &scored[..]);
        let options = QuantizeOptions { weights: &weights, calibration, scored, progress: &mut progress };
        let done = quantize_layers(&checkpoint, &device, options, &mut |layer| writer.layer(layer));
        bar.finish_and_clear();
        let outcome = match done.and_then(|outcome| writer.finish(&side).map(|()| outcome)) {
            Ok(outcome) => outcome,
            Err(error) => {
                writer.abandon();
                return Err(explained(error)).failed();
            }
        };
        if let Some(problem) = quality::broken(&outcome) {
            writer.abandon();
            return Err(anyhow!("{}: {problem}; nothing was written", self.model)).failed();
        }
        let sealed = writer.seal().map_err(explained).failed()?;
        let quality = Quality {
            model: self.model.clone(),
            weights: weights.tag(),
            format: format!("{layout:?}").to_lowercase(),
            calibration: Calibrated {
                text: if checkpoint.is_random() { "random tokens".into() } else { self.calibration.clone() },
                windows: calibration.len(),
                window_tokens: self.window_tokens,
                seed: self.seed,
                beginning: checkpoint.beginning().unwrap_or_default(),
            },
            perplexity: outcome.likelihood.map(|likelihood| Scored::new(&self.text, scored, likelihood)),
            bits_per_weight: sealed.totals.quantized_bytes as f64 * 8.0 / sealed.totals.quantized_weights.max(1) as f64,
            quantized_weights: sealed.totals.quantized_weights,
            bytes: sealed.totals.bytes,
            files: sealed.totals.files.clone(),
            wrapped_zeros: sealed.totals.wrapped_zeros,
            seconds: clock.seconds(),
            peak_memory_bytes: machine::peak_rss(),
            errors: outcome.errors.iter().map(Into::into).collect(),
        };
        publish(sealed, &quality)?;
        print(&format!("{}{}\n", quality.table(), self.output.display()))?;
        Ok(PASS)
    }

    fn weights(&self) -> Result<WeightsSpec, Failure> {
        let mut table = match overrides::parse_value(&self.method) {
            Value::Table(table) => table,
            word => Table::from_iter([("kind".to_string(), word)]),
        };
        let group = self.group.as_deref().map(|group| match group {
            "-1" => Value::String("row".into()),
            other => overrides::parse_value(other),
        });
        // a method that is named alone gets what its users choose; a table says everything itself
        let named_alone = table.len() == 1 && table.get("kind").and_then(Value::as_str) == Some("gptq");
        let order = |given: Option<bool>| given.or(named_alone.then_some(true)).map(Value::Boolean);
        let given = [
            ("bits", self.bits.map(|bits| Value::Integer(bits.into()))),
            ("group", group),
            ("symmetric", self.symmetric.then_some(Value::Boolean(true))),
            ("act_order", order(self.act_order)),
            ("static_groups", order(self.static_groups)),
            ("damping", self.damping.map(Value::Float)),
        ];
        table.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))));
        if !table.contains_key("bits")
            && matches!(table.get("kind").and_then(Value::as_str), Some("gptq" | "rtn" | "awq"))
        {
            table.insert("bits".into(), Value::Integer(4));
        }
        let parts = Table::from_iter([("weights".to_string(), Value::Table(table))]);
        let parts = serde_path_to_error::deserialize::<_, Parts>(Value::Table(parts))
            .map_err(|error| anyhow!("--method {}: {}", self.method, error.inner().message()))
            .usage()?;
        parts.weights.context("--method: no kind of weights").usage()
    }

    /// Windows that start anywhere in the text, or all disjoint ones where it has no more than were asked for: the same tokens again would
    /// cost time and add nothing. Random tokens for weights that mean nothing.
    fn calibration(&self, checkpoint: &Checkpoint, weights: &WeightsSpec) -> Result<Vec<Vec<TokenId>>, Failure> {
        let length = self.window_tokens;
        if self.windows == 0 {
            return Err(anyhow!("--windows: expected at least 1; 64 is the default")).usage();
        }
        let limit = checkpoint.architecture.context_limit();
        if !(2..=limit).contains(&length) {
            return Err(anyhow!("--window-tokens {length}: expected 2 to {limit}, which the model knows")).usage();
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        if checkpoint.is_random() {
            let vocab = checkpoint.architecture.vocab_size as u32;
            let mut window = || (0..length).map(|_| TokenId(rng.random_range(0..vocab))).collect();
            return Ok((0..self.windows).map(|_| window()).collect());
        }
        if checkpoint.tokenizer.is_none() && !weights.needs_calibration() {
            // what each layer loses cannot be measured, and the codes do not depend on it
            return Ok(vec![]);
        }
        let tokens = checkpoint.encode(&text::resolve(&self.calibration, None).usage()?).failed()?;
        if tokens.len() < length {
            let problem = "are fewer than one window; shorten --window-tokens or give a longer text";
            return Err(anyhow!("--calibration {}: {} tokens {problem}", self.calibration, tokens.len())).usage();
        }
        let disjoint = tokens.chunks_exact(length);
        let mut windows: Vec<Vec<TokenId>> = match disjoint.len() <= self.windows {
            true => disjoint.map(<[TokenId]>::to_vec).collect(),
            false => {
                let mut start = || rng.random_range(0..=tokens.len() - length);
                (0..self.windows).map(|_| start()).map(|at| tokens[at..at + length].to_vec()).collect()
            }
        };
        checkpoint.begin(&mut windows).failed()?;
        Ok(windows)
    }

    /// Disjoint windows of the text that is scored.
    fn scored(&self, checkpoint: &Checkpoint) -> Result<Vec<Vec<TokenId>>, Failure> {
        if self.text == "none" || checkpoint.tokenizer.is_none() {
            return Ok(vec![]);
        }
        let tokens = checkpoint.encode(&text::resolve(&self.text, None).usage()?).failed()?;
        let length = checkpoint.architecture.context_limit().min(512);
        if self.text_windows == 0 || tokens.len() < length {
            let found = format!("{} tokens, {} windows of {length} asked for", tokens.len(), self.text_windows);
            let advice = "give a text of at least one window and --text-windows of at least 1, or --text none";
            return Err(anyhow!("--text {}: {found}; {advice}", self.text)).usage();
        }
        let windows = tokens.chunks_exact(length).take(self.text_windows).map(<[TokenId]>::to_vec);
        let mut windows: Vec<Vec<TokenId>> = windows.collect();
        checkpoint.begin(&mut windows).failed()?;
        Ok(windows)
    }
}

fn progress_bar() -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr_with_hz(4),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(None, target);
    let style = ProgressStyle::with_template("layer {pos}/{len} {bar:30} {elapsed_precise}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(std::time::Duration::from_millis(250));
    bar
}

/// Writes the report into the folder and gives the folder its name.
fn publish(sealed: Sealed, quality: &Quality) -> Result<(), Failure> {
    let write = |name: &str, text: String| {
        let file: PathBuf = Path::new(&sealed.partial).join(name);
        std::fs::write(&file, text).with_context(|| format!("{}: cannot write", file.display())).failed()
    };
    write("quality.txt", quality.table())?;
    write("quality.csv", quality.csv())?;
    write("quality.json", super::json(quality)?)?;
    sealed.publish().failed().map(|_| ())
}

/// Says what to do when the disk is full.
fn explained(error: EngineError) -> anyhow::Error {
    let full = |source: &std::io::Error| source.kind() == std::io::ErrorKind::StorageFull;
    let is_full = matches!(&error, EngineError::Checkpoint(CheckpointError::Io { source, .. }) if full(source));
    let error = anyhow::Error::from(error);
    if is_full {
        error.context("the disk is full; make room and run again (what was written is removed)")
    } else {
        error
    }
}
