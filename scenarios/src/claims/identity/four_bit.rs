//! The 4-bit kinds: tables, codings, bits and errors on random tensors; and how normal a model's weights are.

use anyhow::Result;
use model::block::read_layer;
use results::trace::Event;
use weights::identities::four_bit::{self as measured, Distribution};
use weights::{BlockSpec, DoubleQuant, Fp4Spec, Fp4Values, GroupSpec, WeightsSpec};

use super::{at, engine, value};
use crate::worker::{Held, Outcome, progress};

/// Seeds of the random tensors: enough for an interval.
const TENSORS: u64 = 8;

/// `different_bits` and `quantile_difference` of NF4's table; `changed` and `nonzero_zeros` of coding twice.
pub fn nf4_codebook(held: &Held) -> Result<Outcome> {
    let (different, quantiles) = measured::nf4_table();
    let (changed, zeros) = measured::nf4_coding(held.scenario().seed);
    Ok(vec![
        value("different_bits", 0.0, different as f64),
        value("quantile_difference", 0.0, quantiles),
        value("changed", 0.0, changed as f64),
        value("nonzero_zeros", 0.0, zeros as f64),
    ]
    .into())
}

/// Relative mean squared errors on normal tensors, `mse:KIND`, and their ratios, one value per tensor.
pub fn nf4_gaussian_mse(held: &Held) -> Result<Outcome> {
    let blocks = BlockSpec::default();
    let fp4 = |values| WeightsSpec::Fp4(Fp4Spec { values, block: blocks.block, double_quant: None });
    let specs = [WeightsSpec::Nf4(blocks), fp4(Fp4Values::E2m1), fp4(Fp4Values::E3m0), WeightsSpec::Int4(blocks)];
    let mut events = vec![];
    for tensor in 0..TENSORS {
        progress("quantizing", tensor as usize, TENSORS as usize);
        let error = |spec: &WeightsSpec| {
            measured::mean_squared_error(&held.device, spec, Distribution::Gaussian, held.scenario().seed + tensor)
        };
        let [nf4, e2m1, e3m0, int4] = [error(&specs[0])?, error(&specs[1])?, error(&specs[2])?, error(&specs[3])?];
        let x = at(tensor as usize);
        for (name, number) in [
            ("mse_nf4", nf4),
            ("mse_fp4", e2m1),
            ("mse_fp4_e3m0", e3m0),
            ("mse_int4", int4),
            ("nf4_over_fp4", nf4 / e2m1),
            ("nf4_over_fp4_e3m0", nf4 / e3m0),
            ("nf4_over_int4", nf4 / int4),
            ("fp4_over_int4", e2m1 / int4),
        ] {
            events.push(value(name, x, number));
        }
    }
    Ok(events.into())
}

/// `bits_nf4`, `bits_nf4_dq`, `bits_nf4_dqfp8`: bits per weight as packed, everything counted.
pub fn double_quant_bits(held: &Held) -> Result<Outcome> {
    let bits = |double_quant| {
        let spec = WeightsSpec::Nf4(BlockSpec { double_quant, ..BlockSpec::default() });
        measured::stored_bits(&held.device, &spec, held.scenario().seed)
    };
    Ok(vec![
        value("bits_nf4", 0.0, bits(None)?),
        value("bits_nf4_dq", 0.0, bits(Some(DoubleQuant::Dynamic))?),
        value("bits_nf4_dqfp8", 0.0, bits(Some(DoubleQuant::Fp8))?),
    ]
    .into())
}

/// `mismatches` with the standards, and `bits_mxfp4`, `bits_nvfp4` as packed.
pub fn microscaling_codes(held: &Held) -> Result<Outcome> {
    let seed = held.scenario().seed;
    Ok(vec![
        value("mismatches", 0.0, measured::microscaling_mismatches() as f64),
        value("bits_mxfp4", 0.0, measured::stored_bits(&held.device, &WeightsSpec::Mxfp4, seed)?),
        value("bits_nvfp4", 0.0, measured::stored_bits(&held.device, &WeightsSpec::Nvfp4, seed)?),
    ]
    .into())
}

/// `mse_ratio_gaussian`, `mse_ratio_laplace`: NVFP4 over MXFP4, and `int4_ratio_…`: symmetric Int4 in groups of 32 over MXFP4.
pub fn microscaling_mse(held: &Held) -> Result<Outcome> {
    let int4 = WeightsSpec::Rtn(GroupSpec { symmetric: true, ..GroupSpec::new(4, Some(32)) });
    let mut events = vec![];
    for tensor in 0..TENSORS {
        progress("quantizing", tensor as usize, TENSORS as usize);
        for (distribution, name) in [(Distribution::Gaussian, "gaussian"), (Distribution::Laplace, "laplace")] {
            let error = |spec: &WeightsSpec| {
                measured::mean_squared_error(&held.device, spec, distribution, held.scenario().seed + tensor)
            };
            let [mx, nv, int4] = [error(&WeightsSpec::Mxfp4)?, error(&WeightsSpec::Nvfp4)?, error(&int4)?];
            let x = at(tensor as usize);
            events.push(value(&format!("mse_ratio_{name}"), x, nv / mx));
            events.push(value(&format!("int4_ratio_{name}"), x, int4 / mx));
        }
    }
    Ok(events.into())
}

/// `kurtosis` of each matrix of the model, rows scaled to unit variance: 3 for normal weights.
pub fn weight_normality(held: &Held) -> Result<Outcome> {
    if let Err(refused) = engine(held) {
        return Ok(refused);
    }
    let Some(models) = &held.models else {
        return Ok(Outcome::Refused("normality needs a [model]".into()));
    };
    let mut events: Vec<Event> = vec![];
    for layer in 0..models.target.architecture.n_layers {
        let (_, matrices) = read_layer(&models.target.architecture, &*models.target.tensors, layer)?;
        for (_, matrix) in matrices.slots(layer).into_iter().filter(|(slot, _)| !slot.exact) {
            let rows = matrix.to_f32();
            let kurtosis: Vec<f64> = rows.chunks(matrix.cols).filter_map(kurtosis).collect();
            events.push(value("kurtosis", at(events.len()), kurtosis.iter().sum::<f64>() / kurtosis.len() as f64));
        }
    }
    Ok(events.into())
}

/// E(w − μ)⁴/σ⁴; nothing for a constant row.
fn kurtosis(row: &[f32]) -> Option<f64> {
    let n = row.len() as f64;
    let mean = row.iter().map(|&w| w as f64).sum::<f64>() / n;
    let moment = |power| row.iter().map(|&w| (w as f64 - mean).powi(power)).sum::<f64>() / n;
    let variance = moment(2);
    (variance > 0.0).then(|| moment(4) / (variance * variance))
}
