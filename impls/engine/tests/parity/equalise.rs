//! Dividing the inputs of matrices changes no logit, in every family.

use model::block::{Block, BlockOf, Matrix, Place, Trunk, divide, divisible, read_layer};
use model::{Session, Transformer, read_ends};
use weights::{WeightSource, build_linear};

use super::*;

/// The model with every divisible input divided by alternating powers of two, which f32 scales exactly.
fn divided(checkpoint: &Checkpoint, device: &Device, seen: &mut Vec<Place>) -> Arc<Transformer> {
    let (a, tensors) = (&checkpoint.architecture, &*checkpoint.tensors);
    let trunk = Trunk::new(a.clone(), device.clone(), AttentionSpec::Naive.build(device).unwrap());
    let (entry, exit) = read_ends(a, tensors).unwrap();
    let product = |matrix: &Matrix| {
        build_linear(&WeightsSpec::F32, device, WeightSource::F32(&matrix.to_f32()), matrix.rows, matrix.cols, None)
    };
    let blocks = (0..a.n_layers)
        .map(|layer| {
            let (mut vectors, mut matrices) = read_layer(a, tensors, layer).unwrap();
            for input in divisible(a, layer, &vectors, &matrices) {
                let width = matrices.slots(layer).iter().find(|(slot, _)| slot.site == input.sites[0]).unwrap().1.cols;
                let s: Vec<f32> = (0..width).map(|j| [0.25, 1.0, 16.0][j % 3]).collect();
                matrices = divide(a, layer, &input, &s, &mut vectors, matrices);
                seen.push(input.place);
            }
            let linears: BlockOf<_> = matrices.as_ref().try_map(layer, &mut |_, m: &Matrix| product(m)).unwrap();
            Block::new(&trunk, vectors, linears)
        })
        .collect();
    let head = product(&exit.head).unwrap();
    Arc::new(Transformer { trunk, entry, blocks, exit: exit.with_head(head) })
}

#[test]
fn divided_inputs_change_no_logit() {
    let mut seen = vec![];
    for family in families() {
        let (expected, checkpoint, device) = (Expected::read(&family), open(&folder(&family)), device(Isa::best(), 2));
        let transformer = divided(&checkpoint, &device, &mut seen);
        let (tokens, reference, _) = &expected.prompts()[1];
        let kv = KvSpec::default().build(transformer.kv_shape(), tokens.len(), &device).unwrap();
        let mut session = Session::new(transformer, kv);
        let step = Step::extend(SeqId(0), 0, tokens).with_all_logits();
        expected.assert_close(&family, session.forward(&step).unwrap().as_slice(), reference);
    }
    assert!([Place::NormFed, Place::AttentionOut, Place::Down].iter().all(|place| seen.contains(place)));
}
