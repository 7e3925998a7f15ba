use super::*;
use crate::observation::Fact;

fn fact(key: &str) -> Fact {
    Fact { run_id: "r".to_owned(), scope: "run".to_owned(), key: key.to_owned(), value: "v".to_owned() }
}

#[test]
fn one_object_per_line_with_its_version() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("log.jsonl");
    let (mut log, _) = Log::open(&path).expect("open");
    log.append(&[fact("a"), fact("b")]).expect("append");
    log.append(&[]).expect("nothing to append");
    let text = std::fs::read_to_string(&path).expect("text");
    let expected = "{\"v\":1,\"run_id\":\"r\",\"scope\":\"run\",\"key\":\"a\",\"value\":\"v\"}\n\
                    {\"v\":1,\"end\":true,\"run_id\":\"r\",\"scope\":\"run\",\"key\":\"b\",\"value\":\"v\"}\n";
    assert_eq!(text, expected);
    assert_eq!(read::<Fact>(&path).expect("read").rows, [fact("a"), fact("b")]);
    assert_eq!(count_lines(&path), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_apart() {
    let device = Path::new("/dev/full");
    let file = OpenOptions::new().write(true).open(device).expect("every Linux has it");
    let mut log = Log::<Fact> { path: device.to_owned(), file, bytes: 0, rows: 12, kind: PhantomData };
    let error = log.append(&[fact("a")]).expect_err("full");
    assert!(matches!(error, StoreError::Full { saved_rows: Some(12), .. }), "{error}");
    assert!(
        error.to_string().contains("12 rows saved before are intact") && error.to_string().contains("--resume"),
        "{error}"
    );
}

#[test]
fn a_batch_that_cannot_be_written_leaves_the_log_as_it_was() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("log.jsonl");
    let (mut log, _) = Log::open(&path).expect("open");
    log.append(&[fact("a")]).expect("append");
    log.file = OpenOptions::new().read(true).open(&path).expect("a handle that cannot write");
    assert!(matches!(log.append(&[fact("b")]), Err(StoreError::Io { .. })));
    let contents = read::<Fact>(&path).expect("read");
    assert_eq!((contents.rows.len(), contents.warning), (1, None));
}
