//! Downloads that are continued after an interruption, verified, and kept.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use block_transformer_files::{FileError, digest};
use ureq::Agent;
use ureq::http::{Response, header};

use crate::error::DatasetError;

/// Time limit for each of: resolving the name, connecting, and receiving the start of the response.
const TIMEOUT: Option<Duration> = Some(Duration::from_secs(30));

/// A file to download.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Download<'a> {
    /// Its address.
    pub url: &'a str,
    /// Its name in the folder of downloads.
    pub file: &'a str,
    /// Its SHA-256. If it is `None`, the SHA-256 of the first download is recorded in `FILE.sha256`
    /// and required from then on.
    pub sha256: Option<&'a str>,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Returns the path of the file in the folder `cache`, and downloads it if it is not there. The
/// part received before an interruption stays in `FILE.partial`, and the next call continues it.
/// Calls `progress` with the bytes received and the total, which is 0 if the server does not report
/// it.
///
/// # Errors
/// If the file cannot be downloaded or written, or has another SHA-256.
pub(crate) fn fetch(
    download: &Download<'_>,
    cache: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PathBuf, DatasetError> {
    let path = cache.join(download.file);
    let beside = |extension: &str| cache.join(format!("{}.{extension}", download.file));
    let recorded = beside("sha256");
    if path.exists() {
        let known = std::fs::read_to_string(&recorded).ok();
        let expected = download.sha256.or(known.as_deref().map(str::trim));
        let Some(expected) = expected else { return Ok(path) };
        // the file may have been put there by hand, so it is not removed
        return match digest(&path)?.1 {
            found if found == expected => Ok(path),
            found => Err(DatasetError::Checksum { path, found, expected: expected.into() }),
        };
    }
    std::fs::create_dir_all(cache).map_err(FileError::write(cache))?;
    let partial = beside("partial");
    let failed = |source: Cause| DatasetError::Download {
        url: download.url.into(),
        path: path.clone(),
        source,
    };
    transfer(download.url, &partial, &failed, progress)?;
    let found = digest(&partial)?.1;
    match download.sha256 {
        Some(expected) if found != expected => {
            std::fs::remove_file(&partial).map_err(FileError::write(&partial))?;
            let cause = format!("its SHA-256 is {found} instead of {expected}; try again");
            return Err(failed(cause.into()));
        }
        Some(_) => {}
        None => block_transformer_files::write(&recorded, (found + "\n").as_bytes())?,
    }
    std::fs::rename(&partial, &path).map_err(FileError::write(&path))?;
    Ok(path)
}

/// Downloads the rest of `partial`. `failed` makes an error from its cause.
fn transfer(
    url: &str,
    partial: &Path,
    failed: &impl Fn(Cause) -> DatasetError,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), DatasetError> {
    let have = std::fs::metadata(partial).map_or(0, |meta| meta.len());
    let mut response = match request(url, have) {
        // the server has nothing after these bytes: the file is complete, or the bytes belong
        // to another file. Not every file has a checksum that would show this, so the file is
        // downloaded from the start.
        Err(ureq::Error::StatusCode(416)) if have > 0 => request(url, 0),
        other => other,
    }
    .map_err(|error| failed(error.into()))?;
    let continued = have > 0 && continues_at(&response, have);
    if response.status() == 206 && !continued {
        let cause = "the server sent another part of the file than requested; delete";
        return Err(failed(format!("{cause} {} and try again", partial.display()).into()));
    }
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .append(continued)
        .truncate(!continued)
        .open(partial)
        .map_err(FileError::write(partial))?;
    let mut received = if continued { have } else { 0 };
    let length = response.headers().get(header::CONTENT_LENGTH);
    let total = length.and_then(|v| v.to_str().ok()?.parse::<u64>().ok()).map(|n| n + received);
    let interrupted = |received: u64, cause: std::io::Error| {
        let place = format!("the transfer was interrupted at byte {received} ({cause})");
        failed(format!("{place}; a new attempt continues there").into())
    };
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        progress(received, total.unwrap_or(0));
        let n = body.read(&mut buffer).map_err(|error| interrupted(received, error))?;
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n]).map_err(FileError::write(partial))?;
        received += n as u64;
    }
    file.sync_all().map_err(FileError::write(partial))?;
    if total.is_some_and(|total| received < total) {
        return Err(interrupted(received, std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(())
}

/// Requests the bytes of `url` after the first `from`.
fn request(url: &str, from: u64) -> Result<Response<ureq::Body>, ureq::Error> {
    let config = Agent::config_builder()
        .timeout_resolve(TIMEOUT)
        .timeout_connect(TIMEOUT)
        .timeout_recv_response(TIMEOUT);
    let agent = Agent::new_with_config(config.build());
    // a compressed response could not be continued after an interruption
    let request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
    match from {
        0 => request.call(),
        _ => request.header(header::RANGE, format!("bytes={from}-")).call(),
    }
}

/// Returns whether the response is the part of the file from byte `from` to the end.
fn continues_at(response: &Response<ureq::Body>, from: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
    response.status() == 206
        && range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    const BODY: &[u8] =
        b"All happy families are alike; each unhappy family is unhappy in its own way.";
    const SHA: &str = "8100e8e010c7fa3923e4bf5ac782bac75ddaca155a3bd8ba7dce944ba3103c8e";

    /// Serves `requests` requests. Announces the whole body but sends at most `cut` bytes of it.
    fn serve(requests: usize, cut: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/book", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().take(requests) {
                let mut stream = stream.unwrap();
                let (mut from, mut plain) = (None, false);
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let line = line.unwrap().to_lowercase();
                    if let Some(range) = line.strip_prefix("range: bytes=") {
                        from = range.trim_end_matches('-').parse::<usize>().ok();
                    }
                    plain |= line == "accept-encoding: identity";
                    if line.is_empty() {
                        break;
                    }
                }
                assert!(plain, "a compressed answer cannot be resumed");
                let (size, last) = (BODY.len(), BODY.len() - 1);
                let status = match from {
                    None => "200 OK".to_string(),
                    Some(from) if from >= size => "416 Range Not Satisfiable".to_string(),
                    Some(from) => {
                        format!("206 Partial Content\r\nContent-Range: bytes {from}-{last}/{size}")
                    }
                };
                let body = &BODY[from.unwrap_or(0).min(size)..];
                let length = format!("Content-Length: {}\r\nConnection: close", body.len());
                write!(stream, "HTTP/1.1 {status}\r\n{length}\r\n\r\n").unwrap();
                stream.write_all(&body[..cut.min(body.len())]).unwrap();
            }
        });
        url
    }

    fn get(url: &str, sha256: &str, cache: &Path) -> Result<PathBuf, DatasetError> {
        let download = Download { url, file: "book.txt", sha256: Some(sha256) };
        fetch(&download, cache, &mut |_, _| {})
    }

    #[test]
    fn an_interrupted_download_continues() {
        let dir = tempfile::tempdir().unwrap();
        let url = serve(2, 40);
        let error = get(&url, SHA, dir.path()).unwrap_err().to_string();
        assert!(error.contains(&url), "{error}");
        assert_eq!(std::fs::metadata(dir.path().join("book.txt.partial")).unwrap().len(), 40);
        let path = get(&url, SHA, dir.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), BODY);
        // the file was kept, because the server no longer runs
        assert_eq!(get(&url, SHA, dir.path()).unwrap(), path);
    }

    #[test]
    fn a_downloaded_file_with_another_checksum_is_refused_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let error = get(&serve(1, 1000), &"0".repeat(64), dir.path()).unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains("SHA-256") && cause.contains(SHA), "{cause}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_partial_file_without_a_rest_is_downloaded_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("book.txt.partial"), [b'x'; 100]).unwrap();
        let path = get(&serve(2, 1000), SHA, dir.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), BODY);
    }

    #[test]
    fn a_failed_download_names_the_path_where_another_file_is_refused_and_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("book.txt");
        let failure = || get("http://127.0.0.1:9/book", SHA, dir.path()).unwrap_err().to_string();
        let error = failure();
        assert!(error.contains("book.txt") && error.contains("127.0.0.1"), "{error}");
        std::fs::write(&path, "another book").unwrap();
        let error = failure();
        assert!(error.contains("delete it") && error.contains(SHA), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn the_first_download_sets_a_checksum_that_is_not_published() {
        let dir = tempfile::tempdir().unwrap();
        let url = serve(1, 1000);
        let download = Download { url: &url, file: "book.txt", sha256: None };
        let again = || fetch(&download, dir.path(), &mut |_, _| {});
        let path = again().unwrap();
        let recorded = std::fs::read_to_string(dir.path().join("book.txt.sha256")).unwrap();
        assert_eq!(recorded.trim(), SHA);
        assert_eq!(again().unwrap(), path);
        std::fs::write(&path, "another book").unwrap();
        assert!(again().unwrap_err().to_string().contains(SHA));
    }
}
