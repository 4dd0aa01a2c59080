//! Files from the network: resumed where they were cut off, checked, and cached.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::{Response, header};

use crate::DatasetError;

/// Who does not answer by then is not there.
const TIMEOUT: Option<Duration> = Some(Duration::from_secs(30));

/// A file to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Download<'a> {
    /// Where it is.
    pub url: &'a str,
    /// Its name in the cache.
    pub file: &'a str,
    /// What it must hash to, where that is known. Else what it hashed to when it was first fetched
    /// is kept in `FILE.sha256` and holds from then on.
    pub sha256: Option<&'a str>,
}

/// The path of the file in `cache`, fetched if it is not there. What was fetched before a cut stays
/// in `FILE.partial`, and the next call goes on from there.
///
/// # Errors
/// When it cannot be fetched, or is another file than the recipe means.
pub fn fetch(
    download: &Download<'_>,
    cache: &Path,
    progress: &ProgressBar,
) -> Result<PathBuf, DatasetError> {
    let path = cache.join(download.file);
    let beside = |extension: &str| cache.join(format!("{}.{extension}", download.file));
    let recorded = beside("sha256");
    if path.exists() {
        let known = std::fs::read_to_string(&recorded).ok();
        let expected = download.sha256.or(known.as_deref().map(str::trim));
        // a file that was put there by hand is not ours to remove
        let remedy = "delete it to fetch it again, or pass this path itself as --corpus";
        expected.map_or(Ok(()), |expected| check(&path, expected, &path, remedy))?;
        return Ok(path);
    }
    std::fs::create_dir_all(cache).map_err(io(cache))?;
    let partial = beside("partial");
    transfer(download, &partial, &path, progress)?;
    match download.sha256 {
        Some(expected) => {
            let checked =
                check(&partial, expected, &path, "what was fetched is removed, try again");
            if matches!(checked, Err(DatasetError::Checksum { .. })) {
                std::fs::remove_file(&partial).map_err(io(&partial))?;
            }
            checked?;
        }
        None => {
            let found = sha256(&partial).map_err(io(&partial))?;
            std::fs::write(&recorded, found + "\n").map_err(io(&recorded))?;
        }
    }
    std::fs::rename(&partial, &path).map_err(io(&path))?;
    Ok(path)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> DatasetError + use<> {
    let path = path.to_path_buf();
    move |source| DatasetError::Io { path, source }
}

/// Brings `partial` to its full length.
fn transfer(
    download: &Download<'_>,
    partial: &Path,
    path: &Path,
    progress: &ProgressBar,
) -> Result<(), DatasetError> {
    let failed = |reason: String| DatasetError::Download {
        url: download.url.into(),
        reason,
        path: path.into(),
    };
    let have = std::fs::metadata(partial).map_or(0, |meta| meta.len());
    let mut response = match request(download.url, have) {
        // nothing comes after what is there: it is whole already, or of another file; the
        // checksum would tell, but not every file has one
        Err(ureq::Error::StatusCode(416)) if have > 0 => request(download.url, 0),
        other => other,
    }
    .map_err(|e| failed(e.to_string()))?;
    let resumed = have > 0 && resumes_at(&response, have);
    if response.status() == 206 && !resumed {
        let remedy = format!("answered with another part; delete {}", partial.display());
        return Err(failed(remedy));
    }
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .append(resumed)
        .truncate(!resumed)
        .open(partial)
        .map_err(io(partial))?;
    let mut got = if resumed { have } else { 0 };
    let length = response.headers().get(header::CONTENT_LENGTH);
    let expected = length.and_then(|v| v.to_str().ok()?.parse::<u64>().ok()).map(|n| n + got);
    progress.set_length(expected.unwrap_or(0));
    progress.set_position(got);
    let cut_off =
        |got: u64, why: &str| failed(format!("cut off at byte {got}{why}; run it again to go on"));
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = body.read(&mut buffer).map_err(|e| cut_off(got, &format!(" ({e})")))?;
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n]).map_err(io(partial))?;
        got += n as u64;
        progress.set_position(got);
    }
    file.sync_all().map_err(io(partial))?;
    if expected.is_some_and(|expected| got < expected) {
        return Err(cut_off(got, ""));
    }
    Ok(())
}

/// Asks for `url` from byte `from` on.
fn request(url: &str, from: u64) -> Result<Response<ureq::Body>, ureq::Error> {
    let config = Agent::config_builder()
        .timeout_resolve(TIMEOUT)
        .timeout_connect(TIMEOUT)
        .timeout_recv_response(TIMEOUT);
    let agent = Agent::new_with_config(config.build());
    // bytes of a compressed answer could not be counted, nor a cut one gone on with
    let request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
    match from {
        0 => request.call(),
        _ => request.header(header::RANGE, format!("bytes={from}-")).call(),
    }
}

/// Whether the answer is the part from byte `from` on, and not the whole or some other part.
fn resumes_at(response: &Response<ureq::Body>, from: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
    response.status() == 206
        && range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

/// That `file`, to be known as `path`, hashes to `expected`.
fn check(file: &Path, expected: &str, path: &Path, remedy: &str) -> Result<(), DatasetError> {
    let found = sha256(file).map_err(io(file))?;
    if found == expected {
        return Ok(());
    }
    Err(DatasetError::Checksum {
        path: path.into(),
        found,
        expected: expected.into(),
        remedy: remedy.into(),
    })
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    const BODY: &[u8] =
        b"All happy families are alike; each unhappy family is unhappy in its own way.";
    const SHA: &str = "8100e8e010c7fa3923e4bf5ac782bac75ddaca155a3bd8ba7dce944ba3103c8e";

    /// Serves `requests` requests; sends at most `cut` bytes of each body but announces all.
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
                let start = from.unwrap_or(0).min(BODY.len());
                let status = match from {
                    None => "200 OK".to_string(),
                    Some(from) if from >= BODY.len() => "416 Range Not Satisfiable".to_string(),
                    Some(from) => format!(
                        "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
                        BODY.len() - 1,
                        BODY.len()
                    ),
                };
                let body = &BODY[start..];
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(&body[..cut.min(body.len())]).unwrap();
            }
        });
        url
    }

    fn get(url: &str, sha256: &str, cache: &Path) -> Result<PathBuf, DatasetError> {
        let download = Download { url, file: "book.txt", sha256: Some(sha256) };
        fetch(&download, cache, &ProgressBar::hidden())
    }

    #[test]
    fn a_cut_download_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let url = serve(2, 40);
        let error = get(&url, SHA, dir.path()).unwrap_err().to_string();
        assert!(error.contains(&url), "{error}");
        assert_eq!(std::fs::metadata(dir.path().join("book.txt.partial")).unwrap().len(), 40);
        let path = get(&url, SHA, dir.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), BODY);
        // cached: nobody listens any more
        assert_eq!(get(&url, SHA, dir.path()).unwrap(), path);
    }

    #[test]
    fn another_file_than_meant_is_refused_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let error = get(&serve(1, 1000), &"0".repeat(64), dir.path()).unwrap_err().to_string();
        assert!(error.contains("SHA-256") && error.contains(SHA), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn offline_says_where_a_file_of_ones_own_goes() {
        let dir = tempfile::tempdir().unwrap();
        let error = get("http://127.0.0.1:9/book", SHA, dir.path()).unwrap_err().to_string();
        assert!(error.contains("book.txt") && error.contains("--corpus"), "{error}");
    }

    #[test]
    fn a_whole_partial_file_does_not_block_the_download() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("book.txt.partial"), [b'x'; 100]).unwrap();
        let path = get(&serve(2, 1000), SHA, dir.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), BODY);
    }

    #[test]
    fn a_cached_file_that_changed_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("book.txt");
        std::fs::write(&path, "another book").unwrap();
        let error = get("http://127.0.0.1:9/book", SHA, dir.path()).unwrap_err().to_string();
        assert!(error.contains("delete it") && error.contains(SHA), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn without_a_published_checksum_the_first_download_sets_it() {
        let dir = tempfile::tempdir().unwrap();
        let url = serve(1, 1000);
        let download = Download { url: &url, file: "book.txt", sha256: None };
        let again = || fetch(&download, dir.path(), &ProgressBar::hidden());
        let path = again().unwrap();
        let recorded = std::fs::read_to_string(dir.path().join("book.txt.sha256")).unwrap();
        assert_eq!(recorded.trim(), SHA);
        assert_eq!(again().unwrap(), path);
        std::fs::write(&path, "another book").unwrap();
        assert!(again().unwrap_err().to_string().contains(SHA));
    }
}
