//! The one dense f64 loop that GPTQ, its factorisation and the layer error share.

/// Columns per pass: 128 rows of R at this width (256 kB of f64) stay in the second-level cache.
pub(crate) const COLUMN_CHUNK: usize = 256;

/// `target −= Σ_k coefficients[k] · matrix[k·stride ..][.. target.len()]`, k ascending in fours.
pub(crate) fn subtract_combination(target: &mut [f64], coefficients: &[f64], matrix: &[f64], stride: usize) {
    let len = target.len();
    if len == 0 {
        return;
    }
    let row = |k: usize| &matrix[k * stride..][..len];
    let fours = coefficients.len() / 4 * 4;
    for k in (0..fours).step_by(4) {
        let (c0, c1, c2, c3) = (coefficients[k], coefficients[k + 1], coefficients[k + 2], coefficients[k + 3]);
        let (r0, r1, r2, r3) = (row(k), row(k + 1), row(k + 2), row(k + 3));
        for i in 0..len {
            target[i] -= (c0 * r0[i] + c1 * r1[i]) + (c2 * r2[i] + c3 * r3[i]);
        }
    }
    for k in fours..coefficients.len() {
        let (c, r) = (coefficients[k], row(k));
        for i in 0..len {
            target[i] -= c * r[i];
        }
    }
}
