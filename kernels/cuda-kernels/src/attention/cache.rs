//! Keys and values in device memory: which elements, and where the row of a token lies.

use std::marker::PhantomData;

use crate::{Arg, Buffer, GpuError, Number};

/// A type that keys and values are stored as.
pub trait Stored: bytemuck::NoUninit + bytemuck::AnyBitPattern + Send + Sync {
    /// Its name.
    const ELEMENT: Number;
    /// The nearest value.
    fn from_f32(value: f32) -> Self;
    /// The value itself.
    fn to_f64(self) -> f64;
}

impl Stored for f32 {
    const ELEMENT: Number = Number::F32;
    fn from_f32(value: f32) -> f32 {
        value
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}
impl Stored for half::f16 {
    const ELEMENT: Number = Number::F16;
    fn from_f32(value: f32) -> half::f16 {
        half::f16::from_f32(value)
    }
    fn to_f64(self) -> f64 {
        half::f16::to_f64(self)
    }
}
impl Stored for half::bf16 {
    const ELEMENT: Number = Number::Bf16;
    fn from_f32(value: f32) -> half::bf16 {
        half::bf16::from_f32(value)
    }
    fn to_f64(self) -> f64 {
        half::bf16::to_f64(self)
    }
}

/// Keys and values of one layer.
#[derive(Debug, Clone, Copy)]
pub struct KvView<'a> {
    pub(crate) k: u64,
    pub(crate) v: u64,
    pub(crate) element: Number,
    pub(crate) pages: Option<&'a Buffer<i32>>,
    /// Tokens of a slot, or of a page.
    pub(crate) page_tokens: usize,
    pub(crate) max_pages: usize,
    /// Tokens times kv heads that the buffers hold, times the head dim.
    pub(crate) elements: usize,
    lives: PhantomData<&'a ()>,
}

impl<'a> KvView<'a> {
    /// `[slot][kv_heads][capacity][dim]`, for K and V each.
    pub fn contiguous<T: Stored>(k: &'a Buffer<T>, v: &'a Buffer<T>, capacity: usize) -> KvView<'a> {
        KvView {
            k: k.address(),
            v: v.address(),
            element: T::ELEMENT,
            pages: None,
            page_tokens: capacity,
            max_pages: 1,
            elements: k.len().min(v.len()),
            lives: PhantomData,
        }
    }

    /// `[page][kv_heads][page_tokens][dim]`, for K and V each; `table` `[slot][max_pages]` names a sequence's pages in order. Entries
    /// beyond a sequence's length are never read.
    pub fn paged<T: Stored>(
        k: &'a Buffer<T>,
        v: &'a Buffer<T>,
        table: &'a Buffer<i32>,
        max_pages: usize,
        page_tokens: usize,
    ) -> KvView<'a> {
        KvView { pages: Some(table), max_pages, ..KvView::contiguous(k, v, page_tokens) }
    }

    /// The most tokens that a sequence can have.
    pub fn capacity(&self) -> usize {
        self.page_tokens * self.max_pages
    }

    pub(crate) fn table(&self) -> Arg<'static> {
        self.pages.map_or(Arg::Pointer(0), Buffer::arg)
    }

    /// Checks what can be checked without reading device memory.
    pub(crate) fn check(
        &self,
        kernel: &'static str,
        slots: usize,
        kv_heads: usize,
        dim: usize,
    ) -> Result<(), GpuError> {
        let needed = match self.pages {
            None => slots * kv_heads * self.page_tokens * dim,
            Some(table) if table.len() < slots * self.max_pages => {
                let reason = format!("a block table of {} entries, expected {slots} x {}", table.len(), self.max_pages);
                return Err(GpuError::shape(kernel, reason));
            }
            Some(_) => kv_heads * self.page_tokens * dim,
        };
        if self.page_tokens == 0 || self.elements < needed {
            let reason = format!("a cache of {} elements, expected at least {needed}", self.elements);
            return Err(GpuError::shape(kernel, reason));
        }
        Ok(())
    }
}

/// Rows of f32 in a buffer: row r starts at element `at + r·stride`. A step's queries are often part of wider rows.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Holds them.
    pub buffer: &'a Buffer<f32>,
    /// First element of the first row.
    pub at: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `width` that fill the buffer.
    pub fn packed(buffer: &'a Buffer<f32>, width: usize) -> Rows<'a> {
        Rows { buffer, at: 0, stride: width }
    }

    pub(crate) fn arg(&self) -> Arg<'static> {
        self.buffer.arg_at(self.at)
    }

    /// Checks that `rows` rows of `width` are there.
    pub(crate) fn check(&self, kernel: &'static str, what: &str, rows: usize, width: usize) -> Result<(), GpuError> {
        let end = if rows == 0 { self.at } else { self.at + (rows - 1) * self.stride + width };
        if self.stride < width || end > self.buffer.len() {
            let reason = format!(
                "{what}: {rows} rows of {width}, {} apart from element {} on, do not fit a buffer of {}",
                self.stride,
                self.at,
                self.buffer.len()
            );
            return Err(GpuError::shape(kernel, reason));
        }
        Ok(())
    }
}
