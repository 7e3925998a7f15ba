//! The one way to write a file that somebody named: a reader sees the old content or the new one, never a part.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::store::{StoreError, sync_folder};

/// Links that may lead to a file.
const LINKS: usize = 40;

/// Gives what `path` names the content that `fill` writes. Links are followed and stay. A regular file, or a name that is free, is
/// written beside and replaced in one step, with the mode that the umask allows; a failure leaves the old file as it was. A device,
/// a pipe or a socket is written to and stays what it is.
pub fn replace_with<E: From<StoreError>>(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let failed = |error: io::Error| E::from(StoreError::io("write", path, error));
    // the system follows links that no name leads through: `/dev/stdout` is a link to `pipe:[7]`
    let in_place = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
        Ok(found) => !found.is_file(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(failed(error)),
    };
    if in_place {
        let mut out = BufWriter::new(OpenOptions::new().write(true).open(path).map_err(failed)?);
        fill(&mut out)?;
        return out.flush().map_err(failed);
    }
    let target = behind_links(path).map_err(failed)?;
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = target.with_file_name(format!(".{name}.part"));
    let written = fill_new(&beside, failed, fill).and_then(|()| fs::rename(&beside, &target).map_err(failed));
    match written {
        Ok(()) => sync_folder(&target),
        Err(error) => {
            // the first error is the one to tell; a leftover part file is replaced next time
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
    }
    Ok(())
}

fn fill_new<E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E + Copy,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        // left by a run that was stopped
        _ => {}
    }
    let file = File::create_new(path).map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    fill(&mut out)?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)
}

/// The place that `path` leads to; it need not exist.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut place = path.to_path_buf();
    for _ in 0..LINKS {
        match fs::read_link(&place) {
            // a relative link counts from the folder that it lies in
            Ok(next) => place = place.parent().unwrap_or(Path::new("")).join(next),
            Err(_) => return Ok(place),
        }
    }
    Err(io::Error::other("too many links lead on from there"))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn write(path: &Path, text: &str) -> Result<(), StoreError> {
        replace_with(path, |out| out.write_all(text.as_bytes()).map_err(|error| StoreError::io("write", path, error)))
    }

    #[test]
    fn links_are_followed_and_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let (inner, link, chain) =
            (folder.path().join("in/target"), folder.path().join("link"), folder.path().join("chain"));
        fs::create_dir(folder.path().join("in")).expect("a folder");
        symlink("in/target", &link).expect("a link");
        symlink(&link, &chain).expect("a link");
        for (path, text) in [(&link, "one"), (&chain, "two"), (&inner, "three")] {
            write(path, text).expect("written");
            assert_eq!(fs::read_to_string(&inner).expect("readable"), text);
        }
        assert!(link.is_symlink() && chain.is_symlink());
        assert_eq!(fs::read_dir(folder.path().join("in")).expect("readable").count(), 1, "nothing is left beside");
    }

    #[test]
    fn what_is_no_regular_file_is_written_in_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let (link, stopped) = (folder.path().join("null"), folder.path().join("old"));
        symlink("/dev/null", &link).expect("a link");
        write(&link, "gone").expect("written");
        assert!(link.is_symlink() && !Path::new("/dev/null").is_file());
        assert!(write(folder.path(), "text").is_err_and(|e| e.to_string().contains("directory")));
        symlink("old", &stopped).expect("a link to itself");
        assert!(write(&stopped, "text").is_err());
    }

    #[test]
    fn a_failure_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        write(&path, "old").expect("written");
        let failed = replace_with(&path, |out| {
            out.write_all(b"half").map_err(|error| StoreError::io("write", &path, error))?;
            Err(StoreError::io("write", &path, io::ErrorKind::StorageFull.into()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).expect("readable"), "old");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
    }

    #[test]
    fn the_mode_is_that_of_any_new_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, plain) = (folder.path().join("file"), folder.path().join("plain"));
        write(&path, "text").expect("written");
        fs::write(&plain, "text").expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }
}
