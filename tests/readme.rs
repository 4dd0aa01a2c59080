//! The program in the README is the same as the example `generate`.

#[test]
fn the_readme_contains_the_example_word_for_word() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
    let read = |path| std::fs::read_to_string(format!("{root}{path}")).unwrap();
    let example = read("crates/block-transformer/examples/generate.rs");
    let section = format!("```rust\n{example}```\n");
    assert!(read("README.md").contains(&section), "copy the example into the README");
}
