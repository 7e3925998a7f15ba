//! `logits`: what the model thinks, for comparing with another implementation.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use model::{Activations, SeqId, Step, StepModel, TokenId};
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use super::engine_choice::{EngineChoice, finite, token_ids};
use super::table::table;
use super::{Blame, Failure, Outcome, PASS, Shape, deliver, json, print};

/// Highest logits shown per row.
const SHOWN: usize = 5;

/// The command `logits`.
#[derive(Args)]
#[command(after_help = "Example: infermark logits --model embedded:base --tokens 1,2,3 --output logits.safetensors")]
pub struct Logits {
    #[command(flatten)]
    engine: EngineChoice,
    /// Token ids
    #[arg(long, value_name = "1,2,3")]
    tokens: String,
    /// Token ids of the source, for an encoder-decoder; --tokens are then the decoder's, its start token included
    #[arg(long, value_name = "1,2,3")]
    encoder_tokens: Option<String>,
    /// Logits of every position, not only of the last
    #[arg(long)]
    all: bool,
    /// For people (the highest five) or for programs (all of them)
    #[arg(long, value_enum, default_value_t)]
    format: Shape,
    /// Write every position's logits there: safetensors, tensor `logits`, f32, [n, vocab]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct Row<'a> {
    position: usize,
    token: u32,
    logits: &'a [f32],
}

impl Logits {
    /// The tokens, and the logits of each, `[n, vocab]`.
    fn compute(&self) -> Result<(Vec<TokenId>, Activations), Failure> {
        if let Some(pair) = self.engine.open_encoder_decoder()? {
            let vocab = pair.shape.vocab_size;
            let Some(source) = &self.encoder_tokens else {
                return Err(anyhow!(
                    "{}: an encoder-decoder needs a source; give its token ids with --encoder-tokens",
                    pair.source
                ))
                .usage();
            };
            let source = token_ids("--encoder-tokens", source, vocab)?;
            let tokens = token_ids("--tokens", &self.tokens, vocab)?;
            let engine = self.engine.build_encoder_decoder(pair, source.len(), tokens.len())?;
            let mut session = engine.session().failed()?;
            session.encode(SeqId(0), &source, None).failed()?;
            let step = Step::extend(SeqId(0), 0, &tokens).with_all_logits();
            let logits = session.forward(&step).failed()?.clone();
            return Ok((tokens, logits));
        }
        let target = self.engine.open()?;
        if self.encoder_tokens.is_some() {
            return Err(anyhow!("--encoder-tokens: {} has no encoder; leave it out", target.source)).usage();
        }
        let tokens = token_ids("--tokens", &self.tokens, target.architecture.vocab_size)?;
        let logits = self.engine.build(target, tokens.len())?.logits(&tokens)?;
        Ok((tokens, logits))
    }

    pub(super) fn obey(&self) -> Outcome {
        let (tokens, logits) = self.compute()?;
        for i in 0..logits.rows() {
            finite(logits.row(i), || format!("position {i}, after token {}", tokens[i].0))?;
        }
        if let Some(file) = &self.output {
            let bytes: Vec<u8> = logits.as_slice().iter().flat_map(|v| v.to_le_bytes()).collect();
            let view = TensorView::new(Dtype::F32, vec![logits.rows(), logits.cols()], &bytes).failed()?;
            let whole = safetensors::serialize([("logits", view)], None).failed()?;
            deliver(file, |out| Ok(out.write_all(&whole)?))?;
            return Ok(PASS);
        }
        let from = if self.all { 0 } else { tokens.len() - 1 };
        let rows = (from..tokens.len()).map(|i| Row { position: i, token: tokens[i].0, logits: logits.row(i) });
        match self.format {
            Shape::Json => print(&json(&rows.collect::<Vec<_>>())?)?,
            Shape::Table => {
                let highest = |row: Row<'_>| {
                    let mut order: Vec<usize> = (0..row.logits.len()).collect();
                    order.sort_by(|&a, &b| row.logits[b].total_cmp(&row.logits[a]));
                    let words: Vec<String> =
                        order.iter().take(SHOWN).map(|&id| format!("{id}: {:.5}", row.logits[id])).collect();
                    vec![row.position.to_string(), row.token.to_string(), words.join("  ")]
                };
                print(&table(&["position", "token", "highest logits"], rows.map(highest)))?;
            }
        }
        Ok(PASS)
    }
}
