//! Models split over several files: `NAME-00001-of-0000N.gguf` and so on. The first says everything; the others hold tensors.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::header::Header;
use crate::checkpoint::{Bytes, CheckpointError};

/// All files of a model.
pub(super) struct Parts {
    /// Keys of the first, tensors of all.
    pub(super) header: Header,
    pub(super) parts: Vec<Bytes>,
    pub(super) files: Vec<PathBuf>,
}

/// What a file says about being a part: its number from 0, how many there are.
fn part_of(header: &Header) -> Result<Option<[u64; 2]>, CheckpointError> {
    let metadata = &header.metadata;
    let Some(count) = metadata.whole("split.count")?.filter(|count| *count > 1) else { return Ok(None) };
    if count > 99_999 {
        return Err(metadata.wrong("split.count", "at most 99999 files"));
    }
    let number = metadata.whole("split.no")?.filter(|number| *number < count);
    let number = number.ok_or_else(|| metadata.wrong("split.no", &format!("a number below split.count = {count}")))?;
    Ok(Some([number, count]))
}

/// The name of part `number` of `count`, counted from 1.
fn name(stem: &str, number: u64, count: u64) -> String {
    format!("{stem}-{number:05}-of-{count:05}.gguf")
}

/// What stands before the numbers in the name of part `number` of `count`.
fn stem(file: &Path, number: u64, count: u64) -> Option<String> {
    let found = file.file_name()?.to_str()?;
    found.strip_suffix(&name("", number + 1, count)).map(String::from)
}

/// Whether `name` is that of a part of a split model which is not its first.
pub fn is_later_part(name: &str) -> bool {
    let numbers = |name: &str| -> Option<[u64; 2]> {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (_, number) = rest.rsplit_once('-')?;
        (number.len() == 5 && count.len() == 5).then_some(())?;
        Some([number.parse().ok()?, count.parse().ok()?])
    };
    numbers(name).is_some_and(|[number, count]| (2..=count).contains(&number))
}

fn wrong(file: &Path, problem: String, advice: &'static str) -> CheckpointError {
    CheckpointError::Malformed { file: file.into(), problem, advice }
}

impl Parts {
    /// The file of `header` with its other parts, if it has any.
    pub(super) fn open(mut header: Header, bytes: Bytes) -> Result<Parts, CheckpointError> {
        let file = header.metadata.file().to_path_buf();
        let Some([number, count]) = part_of(&header)? else {
            return Ok(Parts { header, parts: vec![bytes], files: vec![file] });
        };
        let Some(stem) = stem(&file, number, count) else {
            let problem = format!("is part {} of {count} of a split model, and not called so", number + 1);
            let advice = "give the parts back their names, NAME-00001-of-0000N.gguf, and name the first";
            return Err(wrong(&file, problem, advice));
        };
        if number > 0 {
            let problem =
                format!("is part {} of {count} of a split model; the first is {}", number + 1, name(&stem, 1, count));
            return Err(wrong(&file, problem, "name the first part: it stands for all of them"));
        }
        let files: Vec<PathBuf> = (1..=count).map(|number| file.with_file_name(name(&stem, number, count))).collect();
        let missing: Vec<String> = files[1..]
            .iter()
            .filter(|file| !file.is_file())
            .filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned()))
            .collect();
        if !missing.is_empty() {
            let problem = format!("is part 1 of {count} of a split model; missing: {}", missing.join(", "));
            return Err(wrong(&file, problem, "put all parts into one folder"));
        }
        let mut parts = vec![bytes];
        for (part, file) in files.iter().enumerate().skip(1) {
            let bytes = Bytes::map(file)?;
            let other = Header::parse(file, &bytes)?;
            if part_of(&other)? != Some([part as u64, count]) {
                let problem =
                    format!("does not say that it is part {} of {count} (keys split.no and split.count)", part + 1);
                return Err(wrong(file, problem, "it belongs to another model; copy or download the parts again"));
            }
            header.tensors.extend(other.tensors.into_iter().map(|place| super::header::Place { part, ..place }));
            parts.push(bytes);
        }
        let mut names = HashSet::new();
        if let Some(twice) = header.tensors.iter().find(|place| !names.insert(place.name.as_str())) {
            let problem = format!("tensor `{}` is in two parts", twice.name);
            return Err(wrong(
                &files[twice.part],
                problem,
                "the parts belong to different models; download them again",
            ));
        }
        let announced = header.metadata.whole("split.tensors.count")?;
        if announced.is_some_and(|announced| announced != header.tensors.len() as u64) {
            let expected = format!("{}, the tensors of all parts", header.tensors.len());
            return Err(header.metadata.wrong("split.tensors.count", &expected));
        }
        Ok(Parts { header, parts, files })
    }
}
