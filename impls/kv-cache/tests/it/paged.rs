//! A paged cache: random histories against a contiguous one, blocks counted, nothing written that others read.

use kv_cache::{EncodingName, KvSpec, PagedSpec};
use model::{Activations, CacheFull, KvCache, KvShape, Room, SeqId, Step, TokenId};
use proptest::prelude::*;

use crate::device;

const SHAPE: KvShape = KvShape { n_key_heads: 1, key_dim: 4, ..KvShape::new(2, 2, 3) };

/// What happens to a cache.
#[derive(Debug, Clone)]
enum Event {
    /// A sequence gets so many entries.
    Extend(u32, usize),
    /// A sequence is cut to a fraction of its entries, in 255ths.
    Truncate(u32, u8),
    /// The second becomes a copy of the first.
    Fork(u32, u32),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let seq = 0..4u32;
    let event = prop_oneof![
        4 => (seq.clone(), 1..40usize).prop_map(|(seq, n)| Event::Extend(seq, n)),
        2 => (seq.clone(), any::<u8>()).prop_map(|(seq, to)| Event::Truncate(seq, to)),
        2 => (seq.clone(), seq).prop_map(|(from, to)| Event::Fork(from, to)),
    ];
    prop::collection::vec(event, 1..40)
}

fn paged(spec: PagedSpec, capacity: usize) -> Box<dyn KvCache> {
    KvSpec::Paged(spec).build(SHAPE, capacity, &device()).unwrap()
}

/// `n` entries more, with values that no other call gave.
fn extend(kv: &mut dyn KvCache, seq: u32, n: usize, stamp: usize) -> Result<(), CacheFull> {
    let (seq, len) = (SeqId(seq), kv.len(0, SeqId(seq)));
    kv.reserve(seq, len + n)?;
    let step = Step::extend(seq, len, &vec![TokenId(0); n]);
    for layer in 0..SHAPE.n_layers {
        let rows = |kind: usize, cols: usize| {
            let values = (0..n * cols).map(|i| ((stamp * 4 + layer * 2 + kind) * 1000 + i) as f32).collect();
            Activations::from_vec(n, cols, values)
        };
        kv.append(layer, &step, &rows(0, SHAPE.key_width()), &rows(1, SHAPE.value_width()));
    }
    Ok(())
}

/// Every value of a sequence, in order.
fn contents(kv: &dyn KvCache, seq: u32) -> Vec<(u32, Vec<f32>)> {
    let (seq, mut all) = (SeqId(seq), vec![]);
    for layer in 0..SHAPE.n_layers {
        kv.tiles(layer, seq, 0..kv.len(layer, seq), 5, &mut |tile| {
            for (t, &position) in tile.positions.iter().enumerate() {
                let sides =
                    [(tile.k, SHAPE.n_key_heads, SHAPE.key_dim), (tile.v, SHAPE.n_value_heads, SHAPE.value_dim)];
                let heads =
                    sides.into_iter().flat_map(|(side, heads, dim)| (0..heads).map(move |h| (side.head(h), dim)));
                all.push((position, heads.flat_map(|(rows, dim)| (0..dim).map(move |i| rows.get(t, i))).collect()));
            }
        });
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// After every event each sequence has what a contiguous cache has; with all sequences gone, all memory is back.
    #[test]
    fn is_a_contiguous_cache(events in events(), block in 1..20usize, encoding in 0..3usize) {
        let encoding = EncodingName::ALL[encoding];
        let spec = PagedSpec { block, encoding, ..PagedSpec::default() };
        let (mut paged, mut plain) = (paged(spec.clone(), 1000), KvSpec::Paged(spec).plain().build(SHAPE, 1000, &device()).unwrap());
        let empty = paged.bytes().resident;
        for (stamp, event) in events.into_iter().enumerate() {
            for kv in [&mut paged, &mut plain] {
                match event {
                    // both are full at the same length
                    Event::Extend(seq, n) => drop(extend(&mut **kv, seq, n, stamp)),
                    Event::Truncate(seq, to) => {
                        let len = kv.len(0, SeqId(seq));
                        kv.truncate(SeqId(seq), len * usize::from(to) / 255);
                    }
                    Event::Fork(from, to) => prop_assert!(from == to || kv.fork(SeqId(from), SeqId(to))),
                }
            }
            for seq in 0..4 {
                prop_assert_eq!(contents(&*paged, seq), contents(&*plain, seq));
            }
            prop_assert_eq!(paged.bytes().logical, plain.bytes().logical);
        }
        (0..4).for_each(|seq| paged.truncate(SeqId(seq), 0));
        prop_assert_eq!(paged.bytes().resident, empty);
    }
}

/// Bytes of one block, and of its number in a table.
fn block_bytes(kv: &dyn KvCache, block: usize) -> usize {
    block * SHAPE.n_layers * kv.entry_bytes() + size_of::<u32>()
}

#[test]
fn a_fork_takes_no_block_until_it_is_written() {
    let mut kv = paged(PagedSpec { block: 8, ..PagedSpec::default() }, 100);
    extend(&mut *kv, 0, 20, 1).unwrap();
    let (one, table) = (kv.bytes().resident, 3 * size_of::<u32>());
    assert_eq!(one, 3 * block_bytes(&*kv, 8));
    assert!(kv.fork(SeqId(0), SeqId(1)));
    assert_eq!(kv.bytes().resident, one + table, "a table alone");
    // the half-filled third block is copied by whoever writes first; then it is the other's own
    extend(&mut *kv, 0, 1, 2).unwrap();
    assert_eq!(kv.bytes().resident, 4 * block_bytes(&*kv, 8) + 2 * size_of::<u32>());
    extend(&mut *kv, 1, 1, 3).unwrap();
    assert_eq!(kv.bytes().resident, 4 * block_bytes(&*kv, 8) + 2 * size_of::<u32>());
    assert_ne!(contents(&*kv, 0), contents(&*kv, 1));
    assert_eq!(contents(&*kv, 0)[..20], contents(&*kv, 1)[..20]);
}

#[test]
fn a_fork_at_the_end_of_a_block_copies_nothing() {
    let mut kv = paged(PagedSpec { block: 8, ..PagedSpec::default() }, 100);
    extend(&mut *kv, 0, 16, 1).unwrap();
    assert!(kv.fork(SeqId(0), SeqId(1)));
    extend(&mut *kv, 1, 1, 2).unwrap();
    assert_eq!(kv.bytes().resident, 3 * block_bytes(&*kv, 8) + 2 * size_of::<u32>());
}

#[test]
fn a_full_pool_refuses_and_nothing_is_lost() {
    let mut kv = paged(PagedSpec { block: 4, pool: Some(16), ..PagedSpec::default() }, 1000);
    extend(&mut *kv, 0, 6, 1).unwrap();
    extend(&mut *kv, 1, 4, 2).unwrap();
    let before = (contents(&*kv, 0), contents(&*kv, 1), kv.bytes());
    let full = extend(&mut *kv, 1, 5, 3).unwrap_err();
    assert_eq!((full.seq, full.needed, full.capacity, full.limit), (SeqId(1), 8, 4, Room::Pool));
    assert!(full.to_string().contains("`pool`"), "{full}");
    assert_eq!((contents(&*kv, 0), contents(&*kv, 1), kv.bytes()), before);
    // a copy before writing counts as well
    assert!(kv.fork(SeqId(0), SeqId(2)));
    extend(&mut *kv, 1, 4, 4).unwrap();
    let full = extend(&mut *kv, 2, 1, 5).unwrap_err();
    assert_eq!((full.needed, full.capacity), (4, 0));
    assert_eq!(contents(&*kv, 2), contents(&*kv, 0));
    kv.truncate(SeqId(1), 0);
    extend(&mut *kv, 2, 1, 6).unwrap();
    assert_eq!(contents(&*kv, 2)[..6], contents(&*kv, 0)[..6]);
}

#[test]
fn specs_say_what_cannot_be() {
    let read = |text: &str| serde_json::from_str::<KvSpec>(text);
    assert_eq!(read(r#"{"kind": "paged"}"#).unwrap().tag(), "paged");
    assert_eq!(read(r#"{"kind": "paged", "block": 32, "encoding": "f16"}"#).unwrap().tag(), "paged-b32-f16");
    assert_eq!(read(r#"{"kind": "paged", "latent": true, "pool": 512}"#).unwrap().tag(), "paged-latent-pool512");
    let refused = |text: &str| read(text).unwrap_err().to_string();
    assert!(refused(r#"{"kind": "paged", "block": 0}"#).contains("expected 1 to 4096"));
    assert!(refused(r#"{"kind": "paged", "pool": 8}"#).contains("expected 16 or more"));
    assert!(refused(r#"{"kind": "paged", "blok": 8}"#).contains("unknown field `blok`"));
}
