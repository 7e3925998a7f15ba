//! Everything this program writes for a reader, in one place: a reader that has seen enough ends the text quietly, a disk that is full is
//! an error that names what could not be written.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use results::run::StoreError;

/// Whether anybody still reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// As far as is known.
    Listening,
    /// It closed the pipe (`| head`): more text would reach nobody, which is no error.
    Gone,
}

/// A writer that remembers whether its reader left, whatever becomes of the error on its way.
struct Watched<W> {
    inner: W,
    reader: Reader,
}

impl<W: Write> Watched<W> {
    fn new(inner: W) -> Watched<W> {
        Watched { inner, reader: Reader::Listening }
    }

    fn watch<T>(&mut self, outcome: io::Result<T>) -> io::Result<T> {
        if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            self.reader = Reader::Gone;
        }
        outcome
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.inner.write(bytes);
        self.watch(outcome)
    }

    fn flush(&mut self) -> io::Result<()> {
        let outcome = self.inner.flush();
        self.watch(outcome)
    }
}

/// Why a file is not there.
enum Unwritten {
    /// The system has no place for it.
    Place(StoreError),
    /// What was to be in it could not be written.
    Content(anyhow::Error),
}

impl From<StoreError> for Unwritten {
    fn from(error: StoreError) -> Unwritten {
        Unwritten::Place(error)
    }
}

/// Lets `write` write into `destination`, called `name` in errors.
fn into(destination: impl Write, name: &str, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Reader> {
    let mut out = Watched::new(destination);
    let outcome = {
        let mut buffered = BufWriter::new(&mut out);
        let written = write(&mut buffered).and_then(|()| Ok(buffered.flush()?));
        // what is left of a text that could not be written is not tried again
        let _ = buffered.into_parts();
        written
    };
    match out.reader {
        Reader::Gone => Ok(Reader::Gone),
        Reader::Listening => outcome.with_context(|| format!("{name}: cannot write")).map(|()| Reader::Listening),
    }
}

/// Writes to standard output and says whether anybody still reads.
pub fn say(text: &str) -> Result<Reader> {
    into(io::stdout().lock(), "standard output", |out| Ok(out.write_all(text.as_bytes())?))
}

/// Lets `write` write the file, or standard output where the file is called `-`.
pub fn deliver(file: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Reader> {
    if file == Path::new("-") {
        return into(io::stdout().lock(), "standard output", write);
    }
    let (name, mut reader) = (file.display().to_string(), Reader::Listening);
    // a reader sees the old file or the new one, a link stays a link and a device a device
    let written = results::replace_with(file, |out| {
        reader = into(out, &name, write).map_err(Unwritten::Content)?;
        Ok(())
    });
    match written {
        Ok(()) => Ok(reader),
        Err(Unwritten::Content(error)) => Err(error),
        Err(Unwritten::Place(StoreError::Io { error, .. })) => {
            Err(error).with_context(|| format!("{name}: cannot write"))
        }
        Err(Unwritten::Place(error)) => Err(error.into()),
    }
}

/// Tells the person something on standard error; there is nobody to tell that it could not be said.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=@,+#".contains(c));
    if plain { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes, then fails with `kind`.
    struct Limited {
        room: usize,
        kind: ErrorKind,
    }

    impl Write for Limited {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(self.kind.into());
            }
            let n = bytes.len().min(self.room);
            self.room -= n;
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes much, wrapping the error as a library would that knows nothing of pipes.
    fn wrapped(out: &mut dyn Write) -> Result<()> {
        (0..10_000).try_for_each(|i| writeln!(out, "line {i}")).map_err(|error| anyhow::anyhow!("CSV error: {error}"))
    }

    #[test]
    fn a_reader_that_left_is_no_error_however_it_is_reported() {
        let gone = into(Limited { room: 100, kind: ErrorKind::BrokenPipe }, "x", wrapped);
        assert_eq!(gone.ok(), Some(Reader::Gone));
        let gone = into(Limited { room: 3, kind: ErrorKind::BrokenPipe }, "x", |out| Ok(out.write_all(b"short")?));
        assert_eq!(gone.ok(), Some(Reader::Gone), "a text that fits the buffer is noticed too");
    }

    #[test]
    fn a_full_disk_is_an_error_that_names_the_file() {
        for write in [wrapped, |out: &mut dyn Write| Ok(out.write_all(b"short")?)] {
            let error = into(Limited { room: 3, kind: ErrorKind::StorageFull }, "rows.csv", write).expect_err("full");
            assert!(format!("{error:#}").starts_with("rows.csv: cannot write"), "{error:#}");
        }
        assert_eq!(into(Vec::new(), "x", wrapped).ok(), Some(Reader::Listening));
    }
}
