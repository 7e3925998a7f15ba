//! Reading numbers and strings from untrusted bytes: every length is checked against what is left before it is used.

/// A place in the bytes of a file.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The bytes end before what they announce, or announce more than they can hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Truncated {
    /// Where reading began.
    pub(super) at: usize,
    /// What was wanted.
    pub(super) wanted: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub(super) fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: u64) -> Result<&'a [u8], Truncated> {
        if n > self.left() {
            return Err(Truncated { at: self.at, wanted: n });
        }
        let start = self.at;
        self.at += n as usize;
        Ok(&self.bytes[start..self.at])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Truncated> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Truncated> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length, then that many bytes of UTF-8; nothing where they are not UTF-8.
    pub(super) fn string(&mut self) -> Result<Option<&'a str>, Truncated> {
        let length = self.u64()?;
        Ok(std::str::from_utf8(self.take(length)?).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let mut cursor = Cursor::new(&[5, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
        assert_eq!(cursor.string(), Err(Truncated { at: 8, wanted: 5 }));
        let huge = u64::MAX.to_le_bytes();
        assert_eq!(Cursor::new(&huge).string(), Err(Truncated { at: 8, wanted: u64::MAX }));
        assert_eq!(Cursor::new(&[1, 2, 3]).u32(), Err(Truncated { at: 0, wanted: 4 }));
    }
}
