//! Files from the network: resumed where they were cut off, checked, and cached.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use crate::DatasetError;

/// A file to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Download<'a> {
    /// Where it is.
    pub url: &'a str,
    /// Its name in the cache.
    pub file: &'a str,
    /// What it must hash to, where that is published.
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
    if path.exists() {
        return Ok(path);
    }
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| DatasetError::Io { path, source }
    };
    std::fs::create_dir_all(cache).map_err(io(cache))?;
    let partial = cache.join(format!("{}.partial", download.file));
    let failed = |reason: String| DatasetError::Download {
        url: download.url.into(),
        reason,
        path: path.clone(),
    };
    let have = std::fs::metadata(&partial).map_or(0, |meta| meta.len());
    let mut request = ureq::get(download.url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(|e| failed(e.to_string()))?;
    let resumed = response.status() == 206;
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .append(resumed)
        .truncate(!resumed)
        .open(&partial)
        .map_err(io(&partial))?;
    let start = if resumed { have } else { 0 };
    let length = response.headers().get("content-length");
    let expected = length.and_then(|v| v.to_str().ok()?.parse::<u64>().ok()).map(|n| n + start);
    progress.set_length(expected.unwrap_or(0));
    progress.set_position(start);
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut got = start;
    loop {
        let n = body.read(&mut buffer).map_err(|e| failed(e.to_string()))?;
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n]).map_err(io(&partial))?;
        got += n as u64;
        progress.set_position(got);
    }
    file.sync_all().map_err(io(&partial))?;
    if expected.is_some_and(|expected| got < expected) {
        return Err(failed(format!("cut off at byte {got}; run the command again to go on")));
    }
    if let Some(expected) = download.sha256 {
        let found = sha256(&partial).map_err(io(&partial))?;
        if found != expected {
            std::fs::remove_file(&partial).map_err(io(&partial))?;
            return Err(DatasetError::Checksum { path, found, expected: expected.into() });
        }
    }
    std::fs::rename(&partial, &path).map_err(io(&path))?;
    Ok(path)
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
                let mut from = None;
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let line = line.unwrap().to_lowercase();
                    if let Some(range) = line.strip_prefix("range: bytes=") {
                        from = range.trim_end_matches('-').parse::<usize>().ok();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                let body = &BODY[from.unwrap_or(0)..];
                let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
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
}
