//! A panic of an engine with the hook of the commands. The hook belongs to the whole process, so that this test has one
//! of its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use block_transformer_server::{
    EngineOptions, ServedModel, Server, ServerConfig, Shutdown, keep_panic,
};
use block_transformer_testing::{model, shape};
use block_transformer_text::Tokenizer;
use burn::tensor::Device;

#[test]
fn the_error_says_where_an_engine_panicked_and_nothing_else_is_printed() {
    static PRINTED: AtomicUsize = AtomicUsize::new(0);
    std::panic::set_hook(Box::new(|panic| {
        if !keep_panic(panic) {
            PRINTED.fetch_add(1, Ordering::SeqCst);
        }
    }));
    let config = shape("prefix");
    let load = || Ok(model(&shape("prefix"), &Device::flex()));
    let on_step: Box<dyn FnMut() + Send> = Box::new(|| panic!("injected"));
    let options =
        EngineOptions { on_step: Some(on_step), ..EngineOptions::new(&Device::flex(), 64) };
    let served = ServedModel::new("prefix", &config, Tokenizer::Bytes, options, load);
    let server = Server::bind(ServerConfig {
        address: ([127, 0, 0, 1], 0).into(),
        ..ServerConfig::default()
    });
    let server = server.unwrap();
    let url = format!("http://{}/v1/completions", server.local_addr());
    let client = std::thread::spawn(move || {
        let mut statuses = Vec::new();
        // until the model is loaded, and until the server has ended
        while let Ok(answer) = ureq::post(&url)
            .config()
            .http_status_as_error(false)
            .build()
            .content_type("application/json")
            .send("{\"prompt\": \"a\"}")
        {
            statuses.push(answer.status().as_u16());
        }
        statuses
    });
    let error = server.run(vec![served], &Shutdown::default(), &mut |_| {}).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("injected (") && error.contains("panic.rs:"), "{error}");
    assert!(
        error.contains("the engine of model prefix failed") && !error.contains('\n'),
        "{error}"
    );
    let statuses = client.join().unwrap();
    assert!(statuses.contains(&500), "{statuses:?}");
    assert_eq!(PRINTED.load(Ordering::SeqCst), 0);
    let _ = std::panic::take_hook();
}
