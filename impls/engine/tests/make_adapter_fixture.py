"""Writes a random LoRA adapter for the fixture llama3-gqa, and its logits by PEFT.

  python make_adapter_fixture.py fixtures
"""
import json, os, sys
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

root = sys.argv[1]; base_folder, out = os.path.join(root, "llama3-gqa"), os.path.join(root, "llama3-gqa-lora")
torch.manual_seed(7)
base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()
config = LoraConfig(r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"], lora_dropout=0.1, bias="none")
model = get_peft_model(base, config).eval()
with torch.no_grad():
    for name, w in model.named_parameters():
        if "lora_" in name: w.normal_(0, 0.2)
ids = torch.tensor([json.load(open(os.path.join(base_folder, "expected.json")))["prompts"][-1]["input_ids"][:24]])
with torch.no_grad(): logits = model(ids).logits[0]
model.save_pretrained(out); os.remove(os.path.join(out, "README.md"))
file = os.path.join(out, "adapter_config.json"); text = json.load(open(file)); text["base_model_name_or_path"] = None; json.dump(text, open(file, "w"), indent=1)
save_file({"logits": logits.contiguous(), "input_ids": ids[0].int().float()}, os.path.join(out, "expected.safetensors"))
print(logits.shape, "largest", logits.abs().max().item())
