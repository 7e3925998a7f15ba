//! Decoders through their public face, against fixtures, exact probabilities and each other.

mod beam;
mod edges;
mod filters;
mod fixtures;
mod lossless;
mod spec;

use decoding::{Decoder, Emitted, Sequence};
use model::{SeqId, TokenId};

fn tokens(ids: &[u32]) -> Vec<TokenId> {
    ids.iter().copied().map(TokenId).collect()
}

fn sequence(id: u32, prompt: &[u32], max_new_tokens: usize, stop: &[u32]) -> Sequence {
    Sequence::new(SeqId(id), tokens(prompt), max_new_tokens, tokens(stop), 11).expect("the prompt has tokens")
}

/// Advances to the end; every call must report exactly what it added.
fn run(decoder: &mut dyn Decoder, sequences: &mut [Sequence]) {
    loop {
        let before: Vec<usize> = sequences.iter().map(|sequence| sequence.tokens().len()).collect();
        let live: Vec<SeqId> = sequences.iter().filter(|s| s.finished().is_none()).map(Sequence::id).collect();
        if live.is_empty() {
            assert_eq!(decoder.advance(sequences).expect("nothing to do"), []);
            break;
        }
        let emitted = decoder.advance(sequences).expect("tables fit");
        let grown: Vec<SeqId> =
            sequences.iter().zip(&before).filter(|(s, n)| s.tokens().len() > **n).map(|(s, _)| s.id()).collect();
        assert_eq!(emitted.iter().map(|e| e.seq).collect::<Vec<_>>(), grown);
        assert!(grown.iter().all(|seq| live.contains(seq)));
        for (sequence, before) in sequences.iter().zip(before) {
            let reported = emitted.iter().find(|e| e.seq == sequence.id()).map_or(&[][..], |e: &Emitted| &e.tokens);
            assert_eq!(&sequence.tokens()[before..], reported);
        }
    }
    for sequence in sequences.iter() {
        decoder.release(sequence.id());
    }
}

/// The same sequence before anything was generated.
fn afresh(sequence: &Sequence) -> Sequence {
    let prompt = sequence.tokens()[..sequence.n_prompt()].to_vec();
    Sequence::new(sequence.id(), prompt, sequence.max_new_tokens(), sequence.stop().to_vec(), 11)
        .expect("the prompt has tokens")
}
