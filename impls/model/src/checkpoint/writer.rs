//! safetensors files written tensor by tensor, never holding more than one: room for the header is left in front and filled
//! at the end, padded with spaces as the format allows. Files are split where they would exceed a size.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::CheckpointError;

/// Header bytes kept per tensor beside its name: type, shape, offsets.
const PER_TENSOR: usize = 120;
/// What a file begins with: the length of its header.
const PREFIX: u64 = 8;

/// A tensor to write.
#[derive(Debug, Clone)]
pub struct NewTensor {
    /// Its whole name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Little-endian values, row-major.
    pub bytes: Vec<u8>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// File names, in order.
    pub files: Vec<String>,
    /// Bytes of tensors.
    pub bytes: u64,
}

/// Writes `model.safetensors`, or `model-00001-of-0000N.safetensors` … with their index.
pub struct ShardWriter {
    folder: PathBuf,
    limit: u64,
    room: usize,
    open: Option<Shard>,
    /// Tensor names and bytes of each finished file.
    finished: Vec<(Vec<String>, u64)>,
}

struct Shard {
    out: BufWriter<File>,
    path: PathBuf,
    header: Map<String, Value>,
    header_len: usize,
    bytes: u64,
    /// Tensors whose length would misalign those behind them; written last.
    odd: Vec<NewTensor>,
}

impl ShardWriter {
    /// Into `folder`, which exists; files hold at most `limit` bytes of tensors (at least one tensor each). `n_tensors` names
    /// of at most `name_len` bytes are expected; more start a new file.
    pub fn new(folder: &Path, limit: u64, n_tensors: usize, name_len: usize) -> ShardWriter {
        let room = (n_tensors * (name_len + PER_TENSOR) + 1024).next_multiple_of(64) - PREFIX as usize;
        ShardWriter { folder: folder.into(), limit, room, open: None, finished: vec![] }
    }

    /// Appends a tensor.
    pub fn add(&mut self, tensor: NewTensor) -> Result<(), CheckpointError> {
        let entry = tensor.name.len() + PER_TENSOR;
        let full = |shard: &Shard| {
            let bytes = shard.bytes + shard.odd_bytes() + tensor.bytes.len() as u64;
            bytes > self.limit || shard.header_len + entry > self.room
        };
        if self.open.as_ref().is_some_and(|shard| shard.is_started() && full(shard)) {
            self.close()?;
        }
        let shard = match &mut self.open {
            Some(shard) => shard,
            None => self.open.insert(Shard::create(&self.folder, self.finished.len(), self.room)?),
        };
        shard.header_len += entry;
        if tensor.bytes.len().is_multiple_of(8) {
            return shard.write(tensor);
        }
        shard.odd.push(tensor);
        Ok(())
    }

    /// Ends the files and gives them their names.
    pub fn finish(mut self) -> Result<Written, CheckpointError> {
        self.close()?;
        let n = self.finished.len();
        let name = |i: usize| match n {
            1 => "model.safetensors".to_string(),
            _ => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let files: Vec<String> = (0..n).map(name).collect();
        for (i, file) in files.iter().enumerate() {
            let to = self.folder.join(file);
            std::fs::rename(unfinished(&self.folder, i), &to).map_err(|e| cannot_write(&to, e))?;
        }
        let bytes = self.finished.iter().map(|(_, bytes)| bytes).sum();
        if n > 1 {
            let map: Map<String, Value> = self
                .finished
                .iter()
                .zip(&files)
                .flat_map(|((names, _), file)| names.iter().map(move |name| (name.clone(), json!(file))))
                .collect();
            let index = json!({ "metadata": { "total_size": bytes }, "weight_map": map });
            let path = self.folder.join("model.safetensors.index.json");
            std::fs::write(&path, format!("{index:#}\n")).map_err(|e| cannot_write(&path, e))?;
        }
        Ok(Written { files, bytes })
    }

    fn close(&mut self) -> Result<(), CheckpointError> {
        let Some(shard) = self.open.take() else { return Ok(()) };
        self.finished.push(shard.close(self.room)?);
        Ok(())
    }
}

impl Shard {
    fn create(folder: &Path, number: usize, room: usize) -> Result<Shard, CheckpointError> {
        let path = unfinished(folder, number);
        let start = |file: &mut BufWriter<File>| file.seek(SeekFrom::Start(PREFIX + room as u64)).map(|_| ());
        let mut out = BufWriter::new(File::create(&path).map_err(|e| cannot_write(&path, e))?);
        start(&mut out).map_err(|e| cannot_write(&path, e))?;
        let header = Map::from_iter([("__metadata__".to_string(), json!({ "format": "pt" }))]);
        Ok(Shard { out, path, header, header_len: 64, bytes: 0, odd: vec![] })
    }

    fn is_started(&self) -> bool {
        self.header.len() > 1 || !self.odd.is_empty()
    }

    fn odd_bytes(&self) -> u64 {
        self.odd.iter().map(|tensor| tensor.bytes.len() as u64).sum()
    }

    fn write(&mut self, tensor: NewTensor) -> Result<(), CheckpointError> {
        let end = self.bytes + tensor.bytes.len() as u64;
        self.out.write_all(&tensor.bytes).map_err(|e| cannot_write(&self.path, e))?;
        let place = json!({
            "dtype": format!("{:?}", tensor.dtype), "shape": tensor.shape, "data_offsets": [self.bytes, end],
        });
        self.header.insert(tensor.name, place);
        self.bytes = end;
        Ok(())
    }

    /// Names and bytes of what the file holds.
    fn close(mut self, room: usize) -> Result<(Vec<String>, u64), CheckpointError> {
        let mut odd = std::mem::take(&mut self.odd);
        odd.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.bitsize()));
        for tensor in odd {
            self.write(tensor)?;
        }
        let mut header = Value::Object(self.header).to_string().into_bytes();
        header.resize(room.max(header.len()), b' ');
        let path = &self.path;
        let finish = |mut out: BufWriter<File>| {
            out.seek(SeekFrom::Start(0))?;
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(&header)?;
            out.into_inner()?.sync_all()
        };
        finish(self.out).map_err(|e| cannot_write(path, e))?;
        let Ok(Value::Object(header)) = serde_json::from_slice(&header) else {
            unreachable!("the header was made an object above");
        };
        Ok((header.into_iter().map(|(name, _)| name).filter(|name| name != "__metadata__").collect(), self.bytes))
    }
}

fn unfinished(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("unfinished-{number:05}.safetensors"))
}

fn cannot_write(file: &Path, source: std::io::Error) -> CheckpointError {
    CheckpointError::Io { file: file.into(), action: "cannot write", source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{TensorData, open_weights};

    fn tensor(name: &str, values: &[f32]) -> NewTensor {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        NewTensor { name: name.into(), dtype: Dtype::F32, shape: vec![values.len()], bytes }
    }

    #[test]
    fn one_file_or_several_hold_the_same_tensors() {
        for (limit, n_files) in [(1 << 20, 1), (16, 3)] {
            let folder = tempfile::tempdir().unwrap();
            let mut writer = ShardWriter::new(folder.path(), limit, 4, 8);
            for (name, values) in
                [("a", &[1.0f32, 2.0, 3.0][..]), ("b", &[4.0, 5.0]), ("c", &[6.0]), ("d", &[7.0, 8.0])]
            {
                writer.add(tensor(name, values)).unwrap();
            }
            let half = NewTensor { dtype: Dtype::F16, bytes: vec![0, 0x3c], ..tensor("e", &[1.0]) };
            writer.add(half).unwrap();
            let written = writer.finish().unwrap();
            assert_eq!((written.files.len(), written.bytes), (n_files, 34));
            let (tensors, files) = open_weights(folder.path()).unwrap();
            assert_eq!(files.len(), n_files);
            assert_eq!(tensors.get("a").unwrap().data.to_f32(), [1.0, 2.0, 3.0]);
            assert_eq!(tensors.get("d").unwrap().data.to_f32(), [7.0, 8.0]);
            assert!(matches!(tensors.get("e").unwrap().data, TensorData::F16(v) if v[0].to_f32() == 1.0));
        }
    }
}
