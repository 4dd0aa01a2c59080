"""One model with random weights in the format of every engine."""

import json
import shutil
import subprocess
from pathlib import Path

SPECIAL = ["<|endoftext|>", "<|padding|>"]


def token(index):
    """Returns the text of a token id in the tokenizer that `write_tokenizer` writes."""
    return SPECIAL[index] if index < len(SPECIAL) else f"t{index}"


def prompts(count, length, vocab_size):
    """Returns the token ids that `bench decode` uses as prompts."""
    return [[(row * 7919 + i * 104_729 + 17) % vocab_size for i in range(length)] for row in range(count)]


class Model:
    """The folder of a model. Each format is written when it is first needed."""

    def __init__(self, folder, binary, preset):
        self.folder, self.binary, self.preset = Path(folder) / preset, binary, preset
        self.checkpoint = self.folder / "checkpoint"
        self.exported = self.folder / "transformers"
        self.config = json.loads(self._program("presets", "--show", preset))
        if "rotary_pct" not in self.config:
            raise SystemExit(f"--preset {preset}: the other engines have vanilla models only")

    def _program(self, *arguments):
        command = [self.binary, *map(str, arguments)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def _write(self, target, write):
        """Calls `write(partial)` unless `target` exists, so that a partial result never stays."""
        if not target.exists():
            partial = target.with_name("partial-" + target.name)
            if partial.is_dir():
                shutil.rmtree(partial)
            write(partial)
            partial.rename(target)
        return target

    def prepare(self):
        """Draws the weights, imports them into a checkpoint and exports it for transformers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(self.checkpoint, self._import)
        self._write(self.exported, self._export)

    def _import(self, out):
        from safetensors.numpy import save_file

        source = self.folder / "random"
        source.mkdir(exist_ok=True)
        write_tokenizer(source / "tokenizer.json", self.config["vocab_size"])
        save_file(random_weights(self.config), source / "model.safetensors")
        self._program("import", "--from", source / "model.safetensors", "--preset", self.preset, "--out", out)
        shutil.rmtree(source)

    def _export(self, out):
        out.mkdir()
        self._program("export", "--checkpoint", self.checkpoint, "--out", out / "model.safetensors")
        path = out / "config.json"
        config = json.loads(path.read_text())
        # the fields that transformers needs beyond those of the export
        config |= {
            "architectures": ["GPTNeoXForCausalLM"],
            "model_type": "gpt_neox",
            "intermediate_size": 4 * config["hidden_size"],
            "hidden_act": "gelu",
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "dtype": "float32",
        }
        path.write_text(json.dumps(config, indent=2))
        names = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[0], "unk_token": SPECIAL[0]}
        tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
        (out / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2))

    def ctranslate2(self):
        """Returns the folder for CTranslate2, with f32 weights."""

        def convert(out):
            import transformers
            from ctranslate2.converters import TransformersConverter

            rotary_pct = self.config["rotary_pct"]

            class Converter(TransformersConverter):
                def load_model(self, *arguments, **options):
                    model = super().load_model(*arguments, **options)
                    # CTranslate2 4.8 reads two names that transformers 5 has changed
                    model.config.rotary_pct = rotary_pct
                    if not hasattr(model, "embed_out"):
                        model.embed_out = model.lm_head
                    return model

            transformers.utils.logging.disable_progress_bar()
            Converter(str(self.exported)).convert(str(out))

        return self._write(self.folder / "ctranslate2", convert)

    def gguf(self, weights):
        """Returns the GGUF file; `weights` is `f32` or `int8`, which is stored as q8_0."""
        return self._write(self.folder / f"{weights}.gguf", lambda out: write_gguf(self.exported, out, weights))


def random_weights(config):
    """Returns tensors with the names and shapes of `GPTNeoXForCausalLM`."""
    import numpy

    draw = numpy.random.default_rng(0)
    hidden, vocab = config["hidden_size"], config["vocab_size"]

    def normal(*shape, mean=0.0):
        return draw.standard_normal(shape, numpy.float32) * numpy.float32(0.02) + numpy.float32(mean)

    tensors = {"gpt_neox.embed_in.weight": normal(vocab, hidden), "embed_out.weight": normal(vocab, hidden)}

    def norm(name):
        tensors[name + ".weight"], tensors[name + ".bias"] = normal(hidden, mean=1.0), normal(hidden)

    norm("gpt_neox.final_layer_norm")
    for layer in range(config["num_hidden_layers"]):
        prefix = f"gpt_neox.layers.{layer}."
        norm(prefix + "input_layernorm")
        norm(prefix + "post_attention_layernorm")
        for name, rows, columns in [
            ("attention.query_key_value", 3 * hidden, hidden),
            ("attention.dense", hidden, hidden),
            ("mlp.dense_h_to_4h", 4 * hidden, hidden),
            ("mlp.dense_4h_to_h", hidden, 4 * hidden),
        ]:
            tensors[prefix + name + ".weight"] = normal(rows, columns)
            tensors[prefix + name + ".bias"] = normal(rows)
    return tensors


def write_tokenizer(path, vocab_size):
    """Writes a tokenizer with one word per id, so that a printed text shows its token ids."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    vocab = {token(index): index for index in range(vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    tokenizer.save(str(path))


def write_gguf(exported, out, weights):
    """Writes the exported model as GGUF, as llama.cpp's `convert_hf_to_gguf.py` does."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((exported / "config.json").read_text())
    hidden, heads, layers = (config[key] for key in ["hidden_size", "num_attention_heads", "num_hidden_layers"])
    writer = gguf.GGUFWriter(out, "gptneox")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(int(config["rotary_pct"] * (hidden // heads)))
    writer.add_rope_freq_base(config["rotary_emb_base"])
    writer.add_head_count(heads)
    writer.add_parallel_residual(config["use_parallel_residual"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPTNEOX, layers)
    for name, values in load_file(exported / "model.safetensors").items():
        if ".query_key_value." in name:
            # the rows are ordered by head, then query, key and value; GGUF has all queries first
            rest = values.shape[1:]
            values = values.reshape(heads, 3, hidden // heads, *rest).swapaxes(0, 1).reshape(3 * hidden, *rest)
        name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if weights == "int8" and values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
