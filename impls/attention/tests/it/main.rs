//! The attention axis from outside: every spec against the oracle, its counters against closed forms, its TOML form.

use std::sync::Arc;

use attention::{AttentionSpec, FlashOrder, FlashSpec};
use cpu_kernels::{Cpu, Isa};
use model::conformance::attention::{cases, check, same_bits};
use model::{Attention, Device, HeadShape, SeqId, Step, TokenId};

fn build(spec: &AttentionSpec, isa: Isa, threads: usize) -> Box<dyn Attention> {
    spec.build(&Device::Cpu(Arc::new(Cpu::new(Some(isa), threads).unwrap()))).unwrap()
}

#[test]
fn every_variant_conforms_on_every_instruction_set() {
    for spec in AttentionSpec::all() {
        for isa in Isa::available() {
            for threads in [1, 2] {
                let attention = build(&spec, isa, threads);
                check(&*attention).unwrap_or_else(|e| panic!("{}, {isa}, {threads} threads: {e}", spec.tag()));
            }
        }
    }
}

#[test]
fn threads_and_skipping_change_no_bit() {
    let noskip = |spec: &AttentionSpec| match spec {
        AttentionSpec::Flash(flash) => AttentionSpec::Flash(FlashSpec { causal_skip: false, ..flash.clone() }),
        other => other.clone(),
    };
    for spec in AttentionSpec::all() {
        for case in cases() {
            let one = case.run(&*build(&spec, Isa::best(), 1));
            for (spec, threads) in [(spec.clone(), 2), (spec.clone(), 7), (noskip(&spec), 1)] {
                let other = case.run(&*build(&spec, Isa::best(), threads));
                assert!(
                    same_bits(one.as_slice(), other.as_slice()),
                    "{}, {threads} threads, {}",
                    spec.tag(),
                    case.name
                );
            }
        }
    }
}

/// A causal prefill of `n` tokens.
fn prefill(n: usize) -> Step {
    Step::extend(SeqId(0), 0, &vec![TokenId(0); n])
}

fn flash(query_tile: usize, key_tile: usize, causal_skip: bool, order: FlashOrder) -> AttentionSpec {
    AttentionSpec::Flash(FlashSpec { query_tile, key_tile, causal_skip, order, ..FlashSpec::default() })
}

#[test]
fn output_is_written_once_in_the_second_order_and_once_per_key_tile_in_the_first() {
    let (n, d, heads) = (1000u64, 64u64, 4u64);
    let (shape, step) = (HeadShape::new(4, 4, 64), prefill(1000));
    let n_key_tiles = n.div_ceil(64);
    let second = flash(32, 64, false, FlashOrder::Fa2).counts(&shape, &step);
    assert_eq!((second.o_writes, second.divisions, second.o_reads), (heads * n * d, heads * n * d, 0));
    assert_eq!(second.q_words, heads * n * d);
    assert_eq!(second.kv_words, heads * n.div_ceil(32) * 2 * n * d);
    let first = flash(32, 64, false, FlashOrder::Fa1).counts(&shape, &step);
    assert_eq!(first.o_writes, n_key_tiles * heads * n * d);
    assert_eq!(first.divisions, n_key_tiles * heads * n * d);
    assert_eq!((first.q_words, first.kv_words), (n_key_tiles * heads * n * d, heads * 2 * n * d));
    assert_eq!(first.flops, heads * 4 * n * n * d);
    assert_eq!(first.needed_flops, heads * 4 * (n * (n + 1) / 2) * d);
}

#[test]
fn causal_skipping_visits_the_lower_triangle() {
    let (shape, step) = (HeadShape::new(2, 2, 64), prefill(4096));
    let skip = flash(64, 64, true, FlashOrder::Fa2).counts(&shape, &step);
    let whole = flash(64, 64, false, FlashOrder::Fa2).counts(&shape, &step);
    assert_eq!(skip.tiles_visited, 2 * 64 * 65 / 2);
    assert_eq!(skip.tiles_visited + skip.tiles_skipped, whole.tiles_visited);
    assert!(whole.tiles_skipped == 0 && skip.needed_flops <= skip.flops && skip.flops < whole.flops);
    let window = HeadShape { window: Some(64), ..shape };
    let skip = flash(64, 64, true, FlashOrder::Fa2).counts(&window, &step);
    assert_eq!(skip.tiles_visited, 2 * (64 + 63));
}

#[test]
fn words_fall_with_the_size_of_fast_memory() {
    let (n, d) = (4096, 64);
    let (shape, step) = (HeadShape::new(1, 1, d), prefill(n));
    let words = |memory: usize| {
        let key_tile = memory / (4 * d);
        flash(key_tile.min(d), key_tile, false, FlashOrder::Fa1).counts(&shape, &step).words() as f64
    };
    let slope = (words(64 * 1024) / words(16 * 1024)).log2() / 2.0;
    assert!((-1.1..=-0.9).contains(&slope), "d log words / d log memory = {slope}");
    let naive = AttentionSpec::Naive.counts(&shape, &step).words() as f64;
    assert!(naive > words(64 * 1024), "{naive} words naive, {} in tiles", words(64 * 1024));
}

#[test]
fn a_group_shares_one_read_of_its_keys() {
    let step = Step::extend(SeqId(0), 4095, &[TokenId(0)]);
    let kv_words = |n_kv_heads| {
        AttentionSpec::Flash(FlashSpec::default()).counts(&HeadShape::new(8, n_kv_heads, 64), &step).kv_words
    };
    assert_eq!(kv_words(8), 8 * kv_words(1));
    assert_eq!(kv_words(8), 4 * kv_words(2));
}

#[test]
fn naive_scratch_holds_the_score_matrix() {
    let naive = build(&AttentionSpec::Naive, Isa::Scalar, 1);
    let shape = HeadShape::new(4, 4, 64);
    assert_eq!(naive.scratch_bytes(&shape, 512, 2048), (512 * 2048 + 512 * 64) * 4);
}

#[test]
fn specs_are_read_as_written() {
    let read = |text: &str| serde_json::from_str::<AttentionSpec>(text);
    assert_eq!(read(r#"{"kind": "naive"}"#).unwrap(), AttentionSpec::Naive);
    assert_eq!(read(r#"{"kind": "flash"}"#).unwrap(), AttentionSpec::Flash(FlashSpec::default()));
    let long =
        read(r#"{"kind": "flash", "query_tile": 16, "key_tile": 128, "causal_skip": false, "order": "fa1"}"#).unwrap();
    assert_eq!(long.tag(), "flash-q16-k128-fa1-noskip");
    let refusals = [
        (r#"{"kind": "flash", "key_tile": 0}"#, "`key_tile = 0`"),
        (r#"{"kind": "flash", "query_tile": 5000}"#, "expected 1 to 1024"),
        (r#"{"kind": "flash", "keytile": 64}"#, "keytile"),
        (r#"{"kind": "naive", "key_tile": 64}"#, "key_tile"),
        (r#"{"kind": "paged"}"#, "paged"),
        (r#"{"kind": "flash", "order": "fa3"}"#, "fa3"),
    ];
    for (text, named) in refusals {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
    let mut tags: Vec<String> = AttentionSpec::all().iter().map(AttentionSpec::tag).collect();
    for spec in AttentionSpec::all() {
        assert_eq!(read(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), AttentionSpec::all().len());
}

#[test]
fn a_spec_out_of_range_is_refused_when_built() {
    let device = Device::Cpu(Arc::new(Cpu::new(None, 1).unwrap()));
    let refused = flash(0, 64, true, FlashOrder::Fa2).build(&device).err().unwrap();
    assert!(refused.to_string().contains("query_tile"), "{refused}");
}
