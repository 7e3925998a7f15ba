//! Work buffers that parts borrow, so that a step allocates nothing once they have grown.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Free buffers of one part. At most one per thread is out at a time, so as many are kept as threads ever met.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Mutex<Vec<Vec<f32>>>,
}

/// A borrowed buffer; goes back to its pool on drop.
#[derive(Debug)]
pub struct Buffer<'p> {
    pool: &'p BufferPool,
    values: Vec<f32>,
    len: usize,
}

impl BufferPool {
    /// `len` values of unspecified content.
    pub fn take(&self, len: usize) -> Buffer<'_> {
        let mut values = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        if values.len() < len {
            // Exact growth: contents are not kept, and reported scratch bytes stay what was asked for.
            values = vec![0.0; len];
        }
        Buffer { pool: self, values, len }
    }

    /// Bytes that the free buffers hold.
    pub fn resident_bytes(&self) -> usize {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.iter().map(|values| values.capacity() * size_of::<f32>()).sum()
    }
}

impl Deref for Buffer<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values[..self.len]
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.len]
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_reused_and_grows_to_what_is_asked() {
        let pool = BufferPool::default();
        drop(pool.take(10));
        drop(pool.take(4));
        assert_eq!(pool.resident_bytes(), 40);
        let (a, b) = (pool.take(3), pool.take(20));
        assert_eq!((a.len(), b.len()), (3, 20));
        drop((a, b));
        assert_eq!(pool.resident_bytes(), 40 + 80);
    }
}
