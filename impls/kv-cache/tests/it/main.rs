//! The KV-cache axis from outside: every spec against the conformance checks, its bytes, its TOML form.

mod paged;

use std::sync::Arc;

use cpu_kernels::Cpu;
use cpu_kernels::attention::Codes;
use kv_cache::{ContiguousSpec, EncodingName, KvSpec};
use model::conformance::kv_cache::check;
use model::{Activations, Device, KvCache, KvShape, SeqId, Step, TokenId};

fn device() -> Device {
    Device::Cpu(Arc::new(Cpu::new(None, 1).unwrap()))
}

fn contiguous(encoding: EncodingName) -> KvSpec {
    KvSpec::Contiguous(ContiguousSpec { encoding })
}

fn filled(spec: &KvSpec, shape: KvShape, len: usize, capacity: usize) -> Box<dyn KvCache> {
    let mut kv = spec.build(shape, capacity, &device()).unwrap();
    kv.reserve(SeqId(0), len).unwrap();
    let step = Step::extend(SeqId(0), 0, &vec![TokenId(0); len]);
    let (k, v) = (Activations::zeros(len, shape.key_width()), Activations::zeros(len, shape.value_width()));
    (0..shape.n_layers).for_each(|layer| kv.append(layer, &step, &k, &v));
    kv
}

#[test]
fn every_cache_conforms() {
    for spec in KvSpec::all() {
        let make = |shape, capacity| spec.build(shape, capacity, &device()).unwrap();
        check(&make, spec.relative_error()).unwrap_or_else(|e| panic!("{}: {e}", spec.tag()));
    }
}

#[test]
fn bytes_follow_heads_and_encoding() {
    let shape = |n_kv_heads| KvShape::new(3, n_kv_heads, 64);
    let logical = |encoding, n_kv_heads| filled(&contiguous(encoding), shape(n_kv_heads), 100, 200).bytes().logical;
    assert_eq!(logical(EncodingName::F32, 8), 100 * 3 * 2 * 8 * 64 * 4);
    assert_eq!(logical(EncodingName::F32, 8), 8 * logical(EncodingName::F32, 1));
    assert_eq!(logical(EncodingName::F32, 8), 2 * logical(EncodingName::F16, 8));
    assert_eq!(logical(EncodingName::Int8, 8), 100 * 3 * 2 * 8 * (64 + 4));
    let latent = filled(&KvSpec::default(), KvShape::latent(2, 576, 512), 10, 10);
    assert_eq!(latent.bytes().logical, 10 * 2 * (512 + 64) * 4, "d_c + d_R elements, and nothing for values");
}

#[test]
fn room_doubles_up_to_the_capacity() {
    let shape = KvShape::new(1, 2, 16);
    let mut kv = KvSpec::default().build(shape, 100, &device()).unwrap();
    let mut rooms = vec![];
    for len in 1..=100 {
        kv.reserve(SeqId(0), len).unwrap();
        rooms.push(kv.bytes().resident / kv.entry_bytes());
    }
    rooms.dedup();
    assert_eq!(rooms, [16, 32, 64, 100]);
}

#[test]
fn a_contiguous_f32_cache_is_read_without_a_copy() {
    let shape = KvShape::new(1, 2, 16);
    let kv = filled(&KvSpec::default(), shape, 50, 64);
    let mut starts = vec![];
    for _ in 0..2 {
        kv.tiles(0, SeqId(0), 8..50, 64, &mut |tile| {
            let Codes::F32(k) = tile.k.codes else { panic!("an f32 cache shows f32") };
            starts.push((k.as_ptr(), tile.positions.len()));
        });
    }
    assert_eq!(starts.len(), 2);
    assert_eq!(starts[0], starts[1]);
}

#[test]
fn specs_are_read_as_written() {
    let read = |text: &str| serde_json::from_str::<KvSpec>(text);
    assert_eq!(read(r#"{"kind": "contiguous"}"#).unwrap(), KvSpec::default());
    assert_eq!(read(r#"{"kind": "contiguous", "encoding": "f16"}"#).unwrap().tag(), "contiguous-f16");
    for (text, named) in [
        (r#"{"kind": "contiguous", "encoding": "f8"}"#, "f8"),
        (r#"{"kind": "contiguous", "encodng": "f16"}"#, "encodng"),
        (r#"{"kind": "scattered"}"#, "scattered"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
    for spec in KvSpec::all() {
        assert_eq!(read(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
    }
}
