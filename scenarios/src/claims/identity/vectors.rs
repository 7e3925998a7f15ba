//! Vector quantization at two bits: its distortion, and the incoherence that it wants.

use anyhow::Result;
use model::block::read_layer;
use ndarray::ArrayView2;
use weights::identities as measured;

use super::{at, value};
use crate::worker::{Held, Outcome};

/// Rows and columns of the Gaussian source.
const SOURCE: [usize; 2] = [256, 1024];

/// `mse_e8p`, `mse_lloyd_max`, `mse_uniform` on a standard Gaussian; `incoherence_ratio`: μ after over before randomised Hadamard
/// transforms of a weight with spikes; `incoherence_before` and `incoherence_after` of each matrix (x) of the held model, if there is one.
pub fn two_bits(held: &Held) -> Result<Outcome> {
    let seed = held.scenario().seed;
    let errors = measured::two_bit_errors(&held.device, SOURCE[0], SOURCE[1], seed)?;
    let spiky = measured::spiky_weight(256, 768, 1000, seed);
    let [before, after] = measured::incoherence(spiky.view(), seed);
    let mut events = vec![
        value("mse_e8p", 0.0, errors.e8p),
        value("mse_lloyd_max", 0.0, errors.lloyd_max),
        value("mse_uniform", 0.0, errors.uniform),
        value("e8p_over_lloyd_max", 0.0, errors.e8p / errors.lloyd_max),
        value("lloyd_max_over_uniform", 0.0, errors.lloyd_max / errors.uniform),
        value("incoherence_ratio", 0.0, after / before),
    ];
    let Some(models) = &held.models else { return Ok(events.into()) };
    let a = &models.target.architecture;
    let mut n = 0;
    for layer in 0..a.n_layers {
        let (_, matrices) = read_layer(a, &*models.target.tensors, layer)?;
        for (_, matrix) in matrices.slots(layer) {
            let values = matrix.to_f32();
            let view = ArrayView2::from_shape((matrix.rows, matrix.cols), &values)?;
            let [before, after] = measured::incoherence(view, seed);
            events.push(value("incoherence_before", at(n), before));
            events.push(value("incoherence_after", at(n), after));
            n += 1;
        }
    }
    Ok(events.into())
}
