//! Instruction sets: the public `Isa` name and the zero-sized tokens that prove a set is present.
//!
//! A token can only be made by `detect()`, so holding one is the proof that its instructions may run; every
//! `unsafe` call into a `#[target_feature]` function in this crate rests on that. Tokens form the chain
//! scalar < avx2 < avx512; nothing is decided at compile time except whether x86 code exists at all.

/// An instruction-set level that a cell can pin; ordered from the slowest to the fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable Rust; the compiler may still use the vectors of the target's baseline (SSE2, NEON).
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL on top of [`Isa::Avx2`]; int8 also uses VNNI where it is present.
    Avx512,
}

impl Isa {
    /// Every level, slowest first, whether or not this machine has it.
    pub const ALL: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

    /// The name used in scenarios and frames.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// Whether this machine can run the level.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            Isa::Avx2 => Avx2::detect().is_some(),
            Isa::Avx512 => Avx512::detect().is_some(),
        }
    }

    /// The levels this machine can run, slowest first; never empty.
    pub fn available() -> Vec<Isa> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The fastest level this machine can run.
    pub fn best() -> Isa {
        Self::ALL.into_iter().rfind(|isa| isa.is_available()).unwrap_or(Isa::Scalar)
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Token of the portable level; always available.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

/// Proof that AVX2, FMA and F16C are present.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

/// Proof that AVX-512 F, BW, DQ and VL are present, and everything [`Avx2`] proves.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

/// Proof that AVX-512 VNNI is present, and everything [`Avx512`] proves.
#[derive(Clone, Copy, Debug)]
pub struct Vnni(());

impl Avx2 {
    /// The token, if this machine has the instructions.
    #[cfg(target_arch = "x86_64")]
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"))
            .then_some(Self(()))
    }

    /// The token, if this machine has the instructions; never on this architecture.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn detect() -> Option<Self> {
        None
    }
}

impl Avx512 {
    /// The token, if this machine has the instructions.
    #[cfg(target_arch = "x86_64")]
    pub fn detect() -> Option<Self> {
        (Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl"))
        .then_some(Self(()))
    }

    /// The token, if this machine has the instructions; never on this architecture.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn detect() -> Option<Self> {
        None
    }

    /// The AVX2 token that this one implies.
    pub fn avx2(self) -> Avx2 {
        Avx2(())
    }
}

impl Vnni {
    /// The token, if this machine has the instructions.
    #[cfg(target_arch = "x86_64")]
    pub fn detect() -> Option<Self> {
        (Avx512::detect().is_some() && is_x86_feature_detected!("avx512vnni")).then_some(Self(()))
    }

    /// The token, if this machine has the instructions; never on this architecture.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn detect() -> Option<Self> {
        None
    }
}

/// The token of the level a [`crate::Cpu`] runs at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Token {
    Scalar(Scalar),
    Avx2(Avx2),
    Avx512(Avx512),
}

impl Token {
    /// The token of `isa`, if this machine has it.
    pub(crate) fn detect(isa: Isa) -> Option<Token> {
        match isa {
            Isa::Scalar => Some(Token::Scalar(Scalar)),
            Isa::Avx2 => Avx2::detect().map(Token::Avx2),
            Isa::Avx512 => Avx512::detect().map(Token::Avx512),
        }
    }

    /// The level this token proves.
    pub(crate) fn isa(self) -> Isa {
        match self {
            Token::Scalar(_) => Isa::Scalar,
            Token::Avx2(_) => Isa::Avx2,
            Token::Avx512(_) => Isa::Avx512,
        }
    }
}
