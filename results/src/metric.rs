//! The registry: every number that infermark prints, its formula in words, and the pure function of a trace that makes it.
//!
//! One concept is one file below; a metric is one [`Definition`] there and one line in [`METRICS`].

use serde::{Deserialize, Serialize};

use crate::observation::{Direction, Observation, Status};
use crate::trace::Trace;

pub mod emulated;
pub mod kernel;
pub mod memory;
pub mod phase;
pub mod request;
pub mod roof;
pub mod score;
pub mod sensitivity;
pub mod speculation;
pub mod task;
pub mod value;

/// What may make two runs of the same code differ; decides how a metric can be gated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Equal on every run with the same seed, build and instruction set: may be gated exactly.
    Deterministic,
    /// Quality of the model's output: no clock involved, compared with a tolerance.
    Quality,
    /// Wall-clock: only comparable between interleaved repetitions on one machine.
    Timing,
    /// Measured memory: depends on allocator and operating system.
    Memory,
}

/// One value derived from a trace.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Value {
    /// Window, request, event or position index; 0 when there is one value.
    pub item: u32,
    /// Sweep coordinate, where one exists.
    pub x: Option<f64>,
    /// The number, in the metric's unit.
    pub value: f64,
    /// Metric id to use instead of the metric's own (values and checks that a scenario names).
    pub name: Option<String>,
    /// What this value belongs to (protocol, phase, kernel); becomes `id:part` only when one trace holds several parts.
    pub part: String,
    /// Protocol that changes the meaning of the number; becomes `formula@1/protocol`.
    pub protocol: Option<String>,
    /// Non-empty when the value shows that the cell is wrong.
    pub failure: String,
}

impl Value {
    /// A lone value with an item index.
    pub fn new(item: usize, value: f64) -> Value {
        Value { item: u32::try_from(item).unwrap_or(u32::MAX), value, ..Value::default() }
    }

    /// The same value at the sweep coordinate `x`.
    pub fn at(self, x: f64) -> Value {
        Value { x: Some(x), ..self }
    }

    /// The same value, belonging to `part`.
    pub fn of(self, part: &str) -> Value {
        Value { part: part.to_owned(), ..self }
    }
}

/// A named, versioned, pure function of a trace.
pub trait Metric: Sync {
    /// Id in the `metric` column, e.g. `tpot_ms`.
    fn id(&self) -> &'static str;
    /// Version of the formula, e.g. `tpot@1`; changes whenever the meaning of the number changes.
    fn formula_id(&self) -> &'static str;
    /// The definition, as plain text.
    fn formula(&self) -> &'static str;
    /// Unit of the values.
    fn unit(&self) -> &'static str;
    /// Which way is better.
    fn direction(&self) -> Direction;
    /// What may make it differ between runs.
    fn kind(&self) -> Kind;
    /// What makes it jitter, in words.
    fn noise(&self) -> &'static str;
    /// True when items of two cells do not correspond one to one (token gaps): comparisons first take the median per repetition.
    fn pooled(&self) -> bool;
    /// The values in one trace; empty when the trace holds no event the metric needs.
    fn derive(&self, trace: &Trace) -> Vec<Value>;
}

/// A metric written down as data; the only implementation of [`Metric`] in this crate.
pub struct Definition {
    /// See [`Metric::id`].
    pub id: &'static str,
    /// See [`Metric::formula_id`].
    pub formula_id: &'static str,
    /// See [`Metric::formula`].
    pub formula: &'static str,
    /// See [`Metric::unit`].
    pub unit: &'static str,
    /// See [`Metric::direction`].
    pub direction: Direction,
    /// See [`Metric::kind`].
    pub kind: Kind,
    /// See [`Metric::noise`].
    pub noise: &'static str,
    /// See [`Metric::pooled`].
    pub pooled: bool,
    /// See [`Metric::derive`].
    pub derive: fn(&Trace) -> Vec<Value>,
}

impl Metric for Definition {
    fn id(&self) -> &'static str {
        self.id
    }
    fn formula_id(&self) -> &'static str {
        self.formula_id
    }
    fn formula(&self) -> &'static str {
        self.formula
    }
    fn unit(&self) -> &'static str {
        self.unit
    }
    fn direction(&self) -> Direction {
        self.direction
    }
    fn kind(&self) -> Kind {
        self.kind
    }
    fn noise(&self) -> &'static str {
        self.noise
    }
    fn pooled(&self) -> bool {
        self.pooled
    }
    fn derive(&self, trace: &Trace) -> Vec<Value> {
        (self.derive)(trace)
    }
}

/// Every metric, in the order of a report's columns.
pub const METRICS: &[&dyn Metric] = &[
    &score::PPL,
    &score::NLL,
    &score::NLL_WINDOW,
    &score::BITS_PER_BYTE,
    &score::DELTA_NLL,
    &score::PPL_RATIO,
    &score::KL_MEAN,
    &score::KL_MAX,
    &score::TOP1_AGREEMENT,
    &task::ACC,
    &task::ACC_NORM,
    &task::ACC_BYTES,
    &task::EXACT_MATCH,
    &task::TARGET_PPL,
    &task::ACC_AT,
    &task::EXACT_MATCH_AT,
    &task::CUT_ITEMS,
    &task::ACC_ITEM,
    &task::ACC_NORM_ITEM,
    &task::ACC_BYTES_ITEM,
    &task::EXACT_MATCH_ITEM,
    &task::ACC_ITEM_AT,
    &task::EXACT_MATCH_ITEM_AT,
    &task::TARGET_NLL,
    &task::ANSWER_NLL,
    &phase::PREFILL_TOK_S,
    &phase::PREFILL_MS,
    &phase::DECODE_TOK_S,
    &phase::DECODE_MS_PER_TOKEN,
    &request::TTFT_MS,
    &request::TPOT_MS,
    &request::ITL_MS,
    &request::CHUNK_TOKENS,
    &request::E2E_MS,
    &memory::WEIGHTS_BYTES,
    &memory::KV_LOGICAL_BYTES,
    &memory::KV_RESIDENT_BYTES,
    &memory::PEAK_RSS_BYTES,
    &phase::LOAD_S,
    &speculation::ACCEPTANCE_RATE,
    &speculation::ACCEPTANCE_ALPHA,
    &speculation::ACCEPTANCE_AT,
    &speculation::TOKENS_PER_RUN,
    &speculation::DRAFT_SHARE,
    &speculation::DRAFT_MS_PER_RUN,
    &speculation::VERIFY_MS_PER_RUN,
    &speculation::DRAFTED_TOKENS,
    &speculation::ACCEPTED_TOKENS,
    &speculation::TARGET_RUNS,
    &kernel::US_PER_CALL,
    &kernel::GFLOP_S,
    &kernel::GOP_S,
    &kernel::GB_S,
    &emulated::INSTRUCTIONS,
    &emulated::MMA_FLOPS,
    &emulated::MEMORY_BYTES,
    &emulated::BANK_CONFLICTS,
    &roof::BANDWIDTH_FRACTION,
    &roof::FLOP_FRACTION,
    &roof::INT8_FRACTION,
    &roof::ROOF_FRACTION,
    &roof::ROOF_EXCESS,
    &sensitivity::SENSITIVITY_KL,
    &sensitivity::MIXTURE_PPL,
    &sensitivity::MIXTURE_KL,
    &sensitivity::MIXTURE_PREDICTED_KL,
    &value::VALUE,
    &value::CHECK,
];

/// The metric behind an id of the `metric` column (`ppl`, `ppl:gptq-256`, `check:logits`); `None` for names that a scenario gave to a value.
pub fn metric(id: &str) -> Option<&'static dyn Metric> {
    let base = id.split(':').next().unwrap_or(id);
    METRICS.iter().copied().find(|metric| metric.id() == base)
}

/// Every metric of one trace as rows. `base` supplies the columns a trace does not know (run, scenario, axes, sitting, threads,
/// kernel path, seed, status); cell, workload and repetition come from the trace. Rows of a cell that is not ok carry no value.
pub fn observe(trace: &Trace, base: &Observation) -> Vec<Observation> {
    let mut rows = Vec::new();
    for metric in METRICS {
        let values = metric.derive(trace);
        let several = values.iter().any(|value| value.part != values[0].part);
        rows.extend(values.into_iter().map(|value| row(*metric, trace, base, value, several)));
    }
    rows
}

fn row(metric: &dyn Metric, trace: &Trace, base: &Observation, value: Value, several: bool) -> Observation {
    let id = match value.name {
        Some(name) => name,
        None if several => format!("{}:{}", metric.id(), value.part),
        None => metric.id().to_owned(),
    };
    let formula_id = match value.protocol {
        Some(protocol) => format!("{}/{protocol}", metric.formula_id()),
        None => metric.formula_id().to_owned(),
    };
    let mut row = Observation {
        cell: trace.cell.clone(),
        workload: trace.workload.clone(),
        repetition: trace.repetition,
        item: value.item,
        metric: id,
        formula_id,
        unit: metric.unit().to_owned(),
        direction: metric.direction(),
        value: Some(value.value),
        x: value.x.filter(|x| x.is_finite()),
        ..base.clone()
    };
    if row.status == Status::Ok && !value.failure.is_empty() {
        row.status = Status::Wrong;
        row.reason = value.failure;
    } else if row.status == Status::Ok && !value.value.is_finite() {
        row.status = Status::Wrong;
        row.reason = format!("{} is {}, not a finite number", row.metric, value.value);
    }
    if row.status != Status::Ok {
        row.value = None;
    }
    row
}
