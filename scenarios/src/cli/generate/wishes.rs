//! What generation_config.json asks for, with the flags that win over it.

use anyhow::anyhow;
use clap::Args;
use decoding::{Decoder, DecodingSpec, Sequence};
use engine::{GenerationConfig, Reads, TextFacts};

use crate::cli::{Blame, Failure};
use crate::output;

/// Rules for the tokens.
#[derive(Args, Clone, Debug)]
pub struct Wishes {
    /// Above 1, tokens that came before are less likely; 1 changes nothing
    #[arg(long, value_name = "X", value_parser = penalty)]
    repetition_penalty: Option<f32>,
    /// So many tokens in a row come only once; 0 allows everything
    #[arg(long, value_name = "N")]
    no_repeat_ngram: Option<usize>,
    /// Tokens to generate before a token that ends a text may come
    #[arg(long, value_name = "N")]
    min_new_tokens: Option<usize>,
    /// Leave aside what generation_config.json says, but for the tokens that end a text
    #[arg(long)]
    ignore_generation_config: bool,
}

fn penalty(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|penalty: &f32| penalty.is_finite() && *penalty > 0.0);
    number.ok_or_else(|| "expected a number above 0".into())
}

impl Wishes {
    /// What `facts` ask for, said aloud where it changes what is generated.
    pub fn of(&self, facts: &TextFacts, reads: Reads) -> Result<GenerationConfig, Failure> {
        let mut config = match self.ignore_generation_config {
            true => facts.ids().usage()?,
            false => facts
                .generation(reads)
                .map_err(|error| anyhow!("{error}; --ignore-generation-config generates without this file's wishes"))
                .usage()?,
        };
        let asked = config.wishes();
        if !asked.is_empty() {
            let file = facts.generation_file();
            output::note(&format!(
                "note: {file} asks for {} (flags win over it; --ignore-generation-config leaves it aside)",
                asked.join(", ")
            ));
        }
        let rules = &mut config.constraints;
        if let Some(penalty) = self.repetition_penalty {
            rules.repetition_penalty = Some(penalty).filter(|penalty| *penalty != 1.0);
        }
        rules.no_repeat_ngram = self.no_repeat_ngram.unwrap_or(rules.no_repeat_ngram);
        if let Some(least) = self.min_new_tokens {
            (rules.min_new_tokens, rules.min_tokens) = (least, 0);
        }
        Ok(config)
    }
}

/// `sequence` under the rules of `config`, if `decoder` obeys them.
pub fn put_on(
    sequence: Sequence,
    decoder: &dyn Decoder,
    config: GenerationConfig,
    decoding: &DecodingSpec,
) -> Result<Sequence, Failure> {
    let mut rules = config.constraints;
    // it is about the start of a sequence, not of its continuation
    rules.first = rules.first.filter(|_| sequence.n_prompt() == 1);
    if !rules.is_empty() && !decoder.obeys_constraints() {
        let names = GenerationConfig { constraints: rules, ..GenerationConfig::default() }.wishes().join(", ");
        let tag = decoding.tag();
        return Err(anyhow!(
            "--decoding {tag}: it does not obey rules for tokens ({names}); choose greedy, sampled or beam decoding, or \
             --ignore-generation-config where generation_config.json asks for them"
        ))
        .usage();
    }
    Ok(sequence.constrained(rules))
}
