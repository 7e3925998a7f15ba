//! Statements to instructions: names become register slots, numbers and special registers become constant slots.

mod asynchronous;
mod compare;
mod convert;
mod float;
mod instruction;
mod integer;
mod lanes;
mod memory;
mod tensor;
mod warp;

use std::collections::HashMap;

use crate::fault::ParseError;
use crate::operation::{
    Address, Bulk, Constant, Instruction, One32, One64, Operation, Reg, Three32, Three64, Truth, Two32, Two64,
};
use crate::shared::FIRST_SHARED;
use crate::syntax::{Function, Operand, Statement, Variable, type_bytes};

pub use integer::insert;

/// The function behind an arithmetic instruction.
pub enum Arithmetic {
    /// One source.
    One32(One32),
    /// Two sources.
    Two32(Two32),
    /// Three sources.
    Three32(Three32),
    /// One source, 64 bits.
    One64(One64),
    /// Two sources, 64 bits.
    Two64(Two64),
    /// Three sources, 64 bits.
    Three64(Three64),
}

macro_rules! arithmetic_from {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Arithmetic {
            fn from(f: $kind) -> Arithmetic {
                Arithmetic::$kind(f)
            }
        }
    )*};
}
arithmetic_from!(One32, Two32, Three32, One64, Two64, Three64);

/// A kernel ready to run.
#[derive(Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Instructions.
    pub code: Vec<Instruction>,
    /// Slots of at most 32 bits.
    pub narrow: usize,
    /// Slots of 64 bits.
    pub wide: usize,
    /// Predicates.
    pub predicates: usize,
    /// What fills the constant slots.
    pub constants: Vec<(Reg, Constant)>,
    /// Predicates that are constant.
    pub constant_truths: Vec<(u32, bool)>,
    /// Parameters: offset and bytes.
    pub params: Vec<(u64, u64)>,
    /// Bytes of local memory of a thread.
    pub local_bytes: u64,
    /// First address of dynamic shared memory.
    pub dynamic_shared: u64,
    /// `.maxntid` or `.reqntid`, product; 0 if absent.
    pub max_threads: u64,
    /// Whether copies out of shared memory or warpgroup products occur.
    pub reads_asynchronously: bool,
    /// Blocks of a cluster per axis.
    pub cluster: [u32; 3],
}

/// A module-level variable in global memory.
#[derive(Debug)]
pub struct Global {
    /// Its contents.
    pub data: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Value(Reg),
    Truth(u32),
}

#[derive(Debug, Clone, Copy)]
enum Symbol {
    /// Address inside its own space.
    Fixed(u64),
    /// Index of a global variable.
    Global(usize),
}

/// What an instruction decodes to: operations that together do it.
type Decoded = Result<Operation, String>;

/// Decodes all kernels of a file.
pub fn decode(text: &crate::syntax::Text, source: &str) -> Result<(Vec<Program>, Vec<Global>), ParseError> {
    let mut globals = Vec::new();
    let mut module = HashMap::new();
    for variable in text.variables.iter().filter(|v| v.space != "shared") {
        module.insert(variable.name.clone(), Symbol::Global(globals.len()));
        globals.push(Global { data: variable.data.clone() });
    }
    let programs = text
        .functions
        .iter()
        .filter(|function| function.entry)
        .map(|function| Decoder::new(function, text, &module).run(source))
        .collect::<Result<_, _>>()?;
    Ok((programs, globals))
}

struct Decoder<'a> {
    function: &'a Function,
    symbols: HashMap<(usize, String), Symbol>,
    slots: HashMap<(usize, String), Slot>,
    constant_slots: HashMap<(bool, Constant), u32>,
    constants: Vec<(Reg, Constant)>,
    constant_truths: Vec<(u32, bool)>,
    narrow: u32,
    wide: u32,
    predicates: u32,
    params: Vec<(u64, u64)>,
    local_bytes: u64,
    dynamic_shared: u64,
    scope: usize,
    code: Vec<Instruction>,
}

impl<'a> Decoder<'a> {
    fn new(function: &'a Function, text: &'a crate::syntax::Text, module: &HashMap<String, Symbol>) -> Decoder<'a> {
        let mut decoder = Decoder {
            function,
            symbols: module.iter().map(|(name, &symbol)| ((0, name.clone()), symbol)).collect(),
            slots: HashMap::new(),
            constant_slots: HashMap::new(),
            constants: Vec::new(),
            constant_truths: Vec::new(),
            narrow: 0,
            wide: 0,
            predicates: 0,
            params: Vec::new(),
            local_bytes: 0,
            dynamic_shared: FIRST_SHARED,
            scope: 0,
            code: Vec::new(),
        };
        decoder.lay_out(text);
        decoder
    }

    /// Addresses of parameters, shared and local variables. Dynamic shared arrays all start behind the static ones.
    fn lay_out(&mut self, text: &crate::syntax::Text) {
        let mut end = 0u64;
        for param in &self.function.params {
            end = end.next_multiple_of(param.align);
            self.symbols.insert((0, param.name.clone()), Symbol::Fixed(end));
            self.params.push((end, param.bytes));
            end += param.bytes;
        }
        let shared = || text.variables.iter().chain(&self.function.variables).filter(|v| v.space == "shared");
        let mut at = FIRST_SHARED;
        let mut placed: Vec<(&Variable, u64)> = Vec::new();
        for variable in shared().filter(|v| v.bytes > 0) {
            at = at.next_multiple_of(variable.align);
            placed.push((variable, at));
            at += variable.bytes;
        }
        let align = shared().filter(|v| v.bytes == 0).map(|v| v.align).max().unwrap_or(1);
        self.dynamic_shared = at.next_multiple_of(align);
        placed.extend(shared().filter(|v| v.bytes == 0).map(|v| (v, self.dynamic_shared)));
        let mut local = 0u64;
        for variable in self.function.variables.iter().filter(|v| v.space == "local") {
            local = local.next_multiple_of(variable.align);
            placed.push((variable, local));
            local += variable.bytes;
        }
        self.local_bytes = local;
        for (variable, address) in placed {
            self.symbols.insert((variable.scope, variable.name.clone()), Symbol::Fixed(address));
        }
    }

    fn run(mut self, source: &str) -> Result<Program, ParseError> {
        let mut starts = Vec::new();
        for statement in &self.function.statements {
            starts.push(self.code.len() as u32);
            self.scope = statement.scope;
            self.statement(statement).map_err(|problem| {
                let text = source.lines().nth(statement.line as usize - 1).unwrap_or_default().trim().to_owned();
                ParseError { line: statement.line, text, problem }
            })?;
        }
        starts.push(self.code.len() as u32);
        let line = self.function.statements.last().map_or(self.function.line, |s| s.line);
        self.code.push(Instruction { guard: None, operation: Operation::Exit, line, weight: 0 });
        for instruction in &mut self.code {
            match &mut instruction.operation {
                Operation::Branch(target) => *target = starts[*target as usize],
                Operation::BranchTable(_, targets) => {
                    targets.iter_mut().for_each(|target| *target = starts[*target as usize]);
                }
                _ => {}
            }
        }
        let product = |name: &str| self.function.directives.get(name).map(|v| v.iter().product::<i64>() as u64);
        Ok(Program {
            name: self.function.name.clone(),
            max_threads: product(".maxntid").or(product(".reqntid")).unwrap_or(0),
            cluster: std::array::from_fn(|axis| {
                let blocks = self.function.directives.get(".reqnctapercluster").and_then(|v| v.get(axis));
                blocks.map_or(1, |&blocks| blocks as u32)
            }),
            reads_asynchronously: self.code.iter().any(|instruction| match &instruction.operation {
                Operation::WideMma(_) => true,
                Operation::Bulk(bulk) => matches!(**bulk, Bulk::Store { .. } | Bulk::TensorStore { .. }),
                _ => false,
            }),
            code: self.code,
            narrow: self.narrow as usize,
            wide: self.wide as usize,
            predicates: self.predicates as usize,
            constants: self.constants,
            constant_truths: self.constant_truths,
            params: self.params,
            local_bytes: self.local_bytes,
            dynamic_shared: self.dynamic_shared,
        })
    }

    fn statement(&mut self, statement: &Statement) -> Result<(), String> {
        let guard = match &statement.guard {
            Some((name, negated)) => Some(Truth { slot: self.truth_slot(name)?, negated: *negated }),
            None => None,
        };
        let operations = self.instruction(statement)?;
        for (index, operation) in operations.into_iter().enumerate() {
            let weight = (index == 0) as u32;
            self.code.push(Instruction { guard, operation, line: statement.line, weight });
        }
        Ok(())
    }

    /// Walks the scopes outwards.
    fn find<T: Copy>(&self, map: &HashMap<(usize, String), T>, name: &str) -> Option<T> {
        let mut key = (self.scope, name.to_owned());
        loop {
            if let Some(&found) = map.get(&key) {
                return Some(found);
            }
            if key.0 == 0 {
                return None;
            }
            key.0 = self.function.scopes[key.0];
        }
    }

    fn slot(&mut self, name: &str) -> Option<Slot> {
        let mut scope = self.scope;
        let kind = loop {
            if let Some(kind) = self.function.registers.get(&(scope, name.to_owned())) {
                break kind;
            }
            if scope == 0 {
                return None;
            }
            scope = self.function.scopes[scope];
        };
        if let Some(&slot) = self.slots.get(&(scope, name.to_owned())) {
            return Some(slot);
        }
        let slot = match (kind.as_str(), type_bytes(kind)?) {
            (".pred", _) => Slot::Truth(self.new_truth()),
            (_, 8) => Slot::Value(self.new_wide()),
            (_, 16) => return None,
            _ => Slot::Value(self.new_narrow()),
        };
        self.slots.insert((scope, name.to_owned()), slot);
        Some(slot)
    }

    fn new_narrow(&mut self) -> Reg {
        self.narrow += 1;
        Reg::Narrow(self.narrow - 1)
    }

    fn new_wide(&mut self) -> Reg {
        self.wide += 1;
        Reg::Wide(self.wide - 1)
    }

    fn new_truth(&mut self) -> u32 {
        self.predicates += 1;
        self.predicates - 1
    }

    fn constant(&mut self, wide: bool, constant: Constant) -> Reg {
        if let Some(&slot) = self.constant_slots.get(&(wide, constant)) {
            return if wide { Reg::Wide(slot) } else { Reg::Narrow(slot) };
        }
        let reg = if wide { self.new_wide() } else { self.new_narrow() };
        let (Reg::Narrow(slot) | Reg::Wide(slot)) = reg;
        self.constant_slots.insert((wide, constant), slot);
        self.constants.push((reg, constant));
        reg
    }

    /// A source or destination: a register, number, special register or address of a variable.
    fn value(&mut self, operand: &Operand, wide: bool) -> Result<Reg, String> {
        let (name, offset) = match operand {
            Operand::Integer(value) => {
                let value = if wide { *value as u64 } else { *value as u32 as u64 };
                return Ok(self.constant(wide, Constant::Value(value)));
            }
            Operand::Single(bits) => return Ok(self.constant(wide, Constant::Value(*bits as u64))),
            Operand::Double(bits) => {
                let bits = if wide { *bits } else { (f64::from_bits(*bits) as f32).to_bits() as u64 };
                return Ok(self.constant(wide, Constant::Value(bits)));
            }
            Operand::Name(name) => (name, 0),
            Operand::Offset(name, offset) => (name, *offset),
            other => return Err(format!("a register or number was expected, not {other:?}")),
        };
        match self.slot(name) {
            Some(Slot::Value(reg)) => return Ok(reg),
            Some(Slot::Truth(_)) => return Err(format!("`{name}` is a predicate, a register was expected")),
            None => {}
        }
        if let Some(constant) = special(name) {
            return Ok(self.constant(wide, constant));
        }
        match self.find(&self.symbols, name) {
            Some(Symbol::Fixed(address)) => {
                Ok(self.constant(wide, Constant::Value(address.wrapping_add_signed(offset))))
            }
            Some(Symbol::Global(index)) => Ok(self.constant(wide, Constant::Variable(index, offset))),
            None => Err(format!("unknown name `{name}`")),
        }
    }

    fn narrow(&mut self, operand: &Operand) -> Result<u32, String> {
        match self.value(operand, false)? {
            Reg::Narrow(slot) => Ok(slot),
            Reg::Wide(_) => Err(format!("{operand:?} has 64 bits, 32 were expected")),
        }
    }

    fn truth_slot(&mut self, name: &str) -> Result<u32, String> {
        match self.slot(name) {
            Some(Slot::Truth(slot)) => Ok(slot),
            _ => Err(format!("`{name}` is no predicate")),
        }
    }

    fn truth(&mut self, operand: &Operand) -> Result<Truth, String> {
        match operand {
            Operand::Name(name) => Ok(Truth { slot: self.truth_slot(name)?, negated: false }),
            Operand::Not(name) => Ok(Truth { slot: self.truth_slot(name)?, negated: true }),
            Operand::Integer(value) => {
                let slot = self.new_truth();
                self.constant_truths.push((slot, *value != 0));
                Ok(Truth { slot, negated: false })
            }
            other => Err(format!("a predicate was expected, not {other:?}")),
        }
    }

    fn is_truth(&mut self, operand: &Operand) -> bool {
        match operand {
            Operand::Name(name) | Operand::Not(name) => matches!(self.slot(name), Some(Slot::Truth(_))),
            _ => false,
        }
    }

    /// `[base + offset]`, from the first element between the brackets.
    fn address(&mut self, operand: &Operand) -> Result<Address, String> {
        let inner = match operand {
            Operand::Memory(parts) => parts.first().ok_or("an address was expected")?,
            other => other,
        };
        match inner {
            Operand::Offset(name, offset) if matches!(self.slot(name), Some(Slot::Value(_))) => {
                Ok(Address { base: self.value(&Operand::Name(name.clone()), true)?, offset: *offset })
            }
            Operand::Vector(_) | Operand::Memory(_) => Err(format!("an address was expected, not {inner:?}")),
            _ => Ok(Address { base: self.value(inner, true)?, offset: 0 }),
        }
    }

    /// The registers of `{a, b, …}` or of a single operand.
    fn vector(&mut self, operand: &Operand, wide: bool) -> Result<Vec<Reg>, String> {
        match operand {
            Operand::Vector(parts) => parts.iter().map(|part| self.value(part, wide)).collect(),
            one => Ok(vec![self.value(one, wide)?]),
        }
    }

    /// Destinations, of which `_` is none.
    fn targets(&mut self, operand: &Operand, wide: bool) -> Result<Vec<Option<Reg>>, String> {
        let mut one = |part: &Operand| match part {
            Operand::Name(name) if name == "_" => Ok(None),
            part => self.value(part, wide).map(Some),
        };
        match operand {
            Operand::Vector(parts) => parts.iter().map(one).collect(),
            part => Ok(vec![one(part)?]),
        }
    }

    fn narrow_vector(&mut self, operand: &Operand) -> Result<Vec<u32>, String> {
        self.vector(operand, false)?
            .into_iter()
            .map(|reg| match reg {
                Reg::Narrow(slot) => Ok(slot),
                Reg::Wide(_) => Err("32-bit registers were expected".to_owned()),
            })
            .collect()
    }

    fn label(&self, operand: &Operand) -> Result<u32, String> {
        let Operand::Name(name) = operand else { return Err("a label was expected".to_owned()) };
        self.find(&self.function.labels, name).map(|at| at as u32).ok_or_else(|| format!("unknown label `{name}`"))
    }
}

fn special(name: &str) -> Option<Constant> {
    let axis = |name: &str| match name {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some((name, part)) = name.rsplit_once('.') {
        let axis = axis(part)?;
        return Some(match name {
            "%tid" => Constant::Thread(axis),
            "%ntid" => Constant::Threads(axis),
            "%ctaid" => Constant::Block(axis),
            "%nctaid" => Constant::Blocks(axis),
            "%clusterid" => Constant::Cluster(axis),
            "%nclusterid" => Constant::Clusters(axis),
            "%cluster_ctaid" => Constant::BlockOfCluster(axis),
            "%cluster_nctaid" => Constant::BlocksOfCluster(axis),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Constant::Lane,
        "%warpid" => Constant::Warp,
        "%nwarpid" => Constant::Warps,
        "%lanemask_eq" => Constant::LanesEqual,
        "%lanemask_lt" => Constant::LanesBelow,
        "%lanemask_le" => Constant::LanesUpTo,
        "%lanemask_gt" => Constant::LanesAbove,
        "%lanemask_ge" => Constant::LanesFrom,
        "%smid" | "%gridid" => Constant::Value(0),
        "%nsmid" => Constant::Value(1),
        "%cluster_ctarank" => Constant::Rank,
        "%cluster_nctarank" => Constant::Ranks,
        "%dynamic_smem_size" => Constant::DynamicBytes,
        "WARP_SZ" => Constant::Value(32),
        _ => return None,
    })
}
