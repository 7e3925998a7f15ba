//! Work that a Step must do at least, counted from sizes: the floor that speed is compared with.

use model::{KvCache, Transformer};

/// Bytes and operations of one Step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkCount {
    /// Bytes of weights, each read once, and of keys and values, each tile read once per span.
    pub bytes: u64,
    /// Floating-point operations; a multiply-add is two.
    pub flops: u64,
    /// int8 operations; a multiply-add is two.
    pub int8_ops: u64,
}

impl WorkCount {
    /// Work of a Step of `rows` tokens of one sequence after `context` cached ones, with logits for `logit_rows`.
    pub fn of_step(transformer: &Transformer, kv: &dyn KvCache, rows: u64, context: u64, logit_rows: u64) -> WorkCount {
        let a = transformer.architecture();
        let mut work = WorkCount::default();
        let last = transformer.linears().count() - 1;
        for (i, linear) in transformer.linears().enumerate() {
            let operations =
                2 * (linear.in_features() * linear.out_features()) as u64 * if i == last { logit_rows } else { rows };
            match linear.is_int8() {
                true => work.int8_ops += operations,
                false => work.flops += operations,
            }
            if i != last || logit_rows > 0 {
                work.bytes += linear.weight_bytes() as u64;
            }
        }
        // row i sees context + i + 1 keys: q·k and p·v are 2 · head_dim each per query head
        let pairs = rows * context + rows * (rows + 1) / 2;
        work.flops += 2 * pairs * (a.n_heads * (a.key_dim() + a.value_dim()) * a.n_layers) as u64;
        work.bytes += (context + rows) * (kv.entry_bytes() * a.n_layers) as u64;
        work
    }

    /// Sum of two counts.
    pub fn plus(self, other: WorkCount) -> WorkCount {
        WorkCount {
            bytes: self.bytes + other.bytes,
            flops: self.flops + other.flops,
            int8_ops: self.int8_ops + other.int8_ops,
        }
    }
}
