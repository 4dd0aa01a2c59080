//! Types in words that do not presuppose Rust.

/// `message`, an error of serde, with plain words for the number type that it expects.
pub fn plain_types(message: &str) -> String {
    const EXPECTED: [(&str, &str); 5] = [
        ("a sequence", "a list"),
        ("usize", "a whole number"),
        ("u64", "a whole number"),
        ("f64", "a number"),
        ("f32", "a number"),
    ];
    EXPECTED.iter().fold(message.to_string(), |message, (rust, plain)| {
        message.replace(&format!("expected {rust}"), &format!("expected {plain}"))
    })
}
