//! Turns an expression on one lane into a function over 32.

/// One source of 32 bits.
macro_rules! one32 {
    (|$x:ident| $result:expr) => {{
        fn lanes(a: &crate::operation::Lanes32, out: &mut crate::operation::Lanes32) {
            for lane in 0..32 {
                let $x = a[lane];
                out[lane] = $result;
            }
        }
        lanes as crate::operation::One32
    }};
}

/// Two sources of 32 bits.
macro_rules! two32 {
    (|$x:ident, $y:ident| $result:expr) => {{
        fn lanes(a: &crate::operation::Lanes32, b: &crate::operation::Lanes32, out: &mut crate::operation::Lanes32) {
            for lane in 0..32 {
                let ($x, $y) = (a[lane], b[lane]);
                out[lane] = $result;
            }
        }
        lanes as crate::operation::Two32
    }};
}

/// Three sources of 32 bits.
macro_rules! three32 {
    (|$x:ident, $y:ident, $z:ident| $result:expr) => {{
        use crate::operation::Lanes32;
        fn lanes(a: &Lanes32, b: &Lanes32, c: &Lanes32, out: &mut Lanes32) {
            for lane in 0..32 {
                let ($x, $y, $z) = (a[lane], b[lane], c[lane]);
                out[lane] = $result;
            }
        }
        lanes as crate::operation::Three32
    }};
}

/// One source of 64 bits.
macro_rules! one64 {
    (|$x:ident| $result:expr) => {{
        fn lanes(a: &crate::operation::Lanes64, out: &mut crate::operation::Lanes64) {
            for lane in 0..32 {
                let $x = a[lane];
                out[lane] = $result;
            }
        }
        lanes as crate::operation::One64
    }};
}

/// Two sources of 64 bits.
macro_rules! two64 {
    (|$x:ident, $y:ident| $result:expr) => {{
        fn lanes(a: &crate::operation::Lanes64, b: &crate::operation::Lanes64, out: &mut crate::operation::Lanes64) {
            for lane in 0..32 {
                let ($x, $y) = (a[lane], b[lane]);
                out[lane] = $result;
            }
        }
        lanes as crate::operation::Two64
    }};
}

/// Three sources of 64 bits.
macro_rules! three64 {
    (|$x:ident, $y:ident, $z:ident| $result:expr) => {{
        use crate::operation::Lanes64;
        fn lanes(a: &Lanes64, b: &Lanes64, c: &Lanes64, out: &mut Lanes64) {
            for lane in 0..32 {
                let ($x, $y, $z) = (a[lane], b[lane], c[lane]);
                out[lane] = $result;
            }
        }
        lanes as crate::operation::Three64
    }};
}

/// A comparison of 32-bit values.
macro_rules! compare32 {
    (|$x:ident, $y:ident| $result:expr) => {{
        fn lanes(a: &crate::operation::Lanes32, b: &crate::operation::Lanes32) -> u32 {
            let mut mask = 0;
            for lane in 0..32 {
                let ($x, $y) = (a[lane], b[lane]);
                mask |= ($result as u32) << lane;
            }
            mask
        }
        lanes as crate::operation::Compare32
    }};
}

/// A comparison of 64-bit values.
macro_rules! compare64 {
    (|$x:ident, $y:ident| $result:expr) => {{
        fn lanes(a: &crate::operation::Lanes64, b: &crate::operation::Lanes64) -> u32 {
            let mut mask = 0;
            for lane in 0..32 {
                let ($x, $y) = (a[lane], b[lane]);
                mask |= ($result as u32) << lane;
            }
            mask
        }
        lanes as crate::operation::Compare64
    }};
}

pub(crate) use {compare32, compare64, one32, one64, three32, three64, two32, two64};
