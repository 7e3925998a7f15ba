//! What a PTX file consists of.

use std::collections::HashMap;

/// What stands between two commas.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register, variable, label or special register.
    Name(String),
    /// `name + bytes`.
    Offset(String, i64),
    /// `!p`.
    Not(String),
    /// An integer constant.
    Integer(i64),
    /// Bits of a 32-bit float.
    Single(u32),
    /// Bits of a 64-bit float.
    Double(u64),
    /// `{a, b, …}`.
    Vector(Vec<Operand>),
    /// `a|b`.
    Pair(Box<Operand>, Box<Operand>),
    /// `[a + offset, b, …]`.
    Memory(Vec<Operand>),
    /// `(a, b, …)` of a call.
    List(Vec<Operand>),
}

/// One instruction.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Line of the text, from 1.
    pub line: u32,
    /// Scope it stands in.
    pub scope: usize,
    /// Predicate and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// Opcode with its suffixes.
    pub opcode: String,
    /// Operands in order.
    pub operands: Vec<Operand>,
}

/// A declared variable.
#[derive(Debug, Clone)]
pub struct Variable {
    /// `shared`, `local`, `global`, `const` or `param`.
    pub space: String,
    /// Its name.
    pub name: String,
    /// Bytes; 0 for `extern` arrays.
    pub bytes: u64,
    /// Alignment in bytes.
    pub align: u64,
    /// Initial contents, zero-filled.
    pub data: Vec<u8>,
    /// Scope it stands in (0 = function or module).
    pub scope: usize,
}

/// A kernel or a function.
#[derive(Debug, Clone, Default)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Whether it is an entry.
    pub entry: bool,
    /// Return values, for functions.
    pub returns: Vec<Variable>,
    /// Parameters.
    pub params: Vec<Variable>,
    /// Registers: (scope, name) to type.
    pub registers: HashMap<(usize, String), String>,
    /// Variables of the body.
    pub variables: Vec<Variable>,
    /// Parent of each scope.
    pub scopes: Vec<usize>,
    /// Labels: (scope, name) to statement index.
    pub labels: HashMap<(usize, String), usize>,
    /// Jump tables: (scope, name) to labels.
    pub tables: HashMap<(usize, String), Vec<String>>,
    /// Instructions.
    pub statements: Vec<Statement>,
    /// Line of the declaration.
    pub line: u32,
    /// `.maxntid`, `.reqntid`, `.reqnctapercluster` …
    pub directives: HashMap<String, Vec<i64>>,
}

/// Everything in a PTX file.
#[derive(Debug, Default)]
pub struct Text {
    /// Kernels and functions with bodies.
    pub functions: Vec<Function>,
    /// Module-level variables.
    pub variables: Vec<Variable>,
}

/// Bytes of a fundamental type.
pub fn type_bytes(name: &str) -> Option<u64> {
    Some(match name.trim_start_matches('.') {
        "pred" => 1,
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        "b128" => 16,
        _ => return None,
    })
}
