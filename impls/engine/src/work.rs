//! Work that a Step must do at least, counted from sizes: the floor that speed is compared with.

use model::probe::Site;
use model::{KvCache, Linear, Transformer};

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
        for (layer, block) in transformer.blocks.iter().enumerate() {
            for (slot, linear) in block.linears.slots(layer) {
                // of a layer's experts, the rows of a Step visit at least as many as one row does
                let (n, visited) = match (slot.site, &a.experts) {
                    (Site::ExpertIn(..) | Site::ExpertDownIn(..), Some(experts)) => (experts.n, experts.top_k),
                    _ => (1, 1),
                };
                work.add(&**linear, rows as f64 * visited as f64 / n as f64, visited as f64 / n as f64);
            }
        }
        work.add(&*transformer.exit.head, logit_rows as f64, if logit_rows > 0 { 1.0 } else { 0.0 });
        // row i sees context + i + 1 keys: q·k and p·v are 2 · head_dim each per query head
        let pairs = rows * context + rows * (rows + 1) / 2;
        work.flops += 2 * pairs * (a.n_heads * (a.key_dim() + a.value_dim()) * a.n_layers) as u64;
        work.bytes += (context + rows) * (kv.entry_bytes() * a.n_layers) as u64;
        work
    }

    /// Adds a product of `rows` rows that reads `share` of its weights; shares of equal experts add up to whole ones.
    fn add(&mut self, linear: &dyn Linear, rows: f64, share: f64) {
        let operations = (2.0 * (linear.in_features() * linear.out_features()) as f64 * rows).round() as u64;
        match linear.is_int8() {
            true => self.int8_ops += operations,
            false => self.flops += operations,
        }
        self.bytes += (linear.weight_bytes() as f64 * share).round() as u64;
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
