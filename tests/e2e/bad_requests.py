"""Requests that are refused, and for which field."""

NAN, INFINITY = float("nan"), float("inf")
USER = [{"role": "user", "content": "hi"}]


def sampling(**params):
    return {"prompt": "x", "sampling": params, "max_new_tokens": 4}


# name -> (request, the field that the message names)
BAD = {
    "no input": ({}, "input"),
    "empty prompt": ({"prompt": ""}, "prompt"),
    "no prompt ids": ({"prompt_token_ids": {}}, "prompt_token_ids"),
    "id beyond the vocabulary": ({"prompt_token_ids": {"ids": [1, 2000]}}, "prompt_token_ids"),
    "huge id": ({"prompt_token_ids": {"ids": [2**32 - 1]}}, "prompt_token_ids"),
    "no room": ({"prompt_token_ids": {"ids": [5] * 4096}}, "prompt_token_ids"),
    "more than max_length": ({"prompt_token_ids": {"ids": [5] * 5000}}, "prompt_token_ids"),
    "no messages": ({"chat": {}}, "chat.messages"),
    "unknown role": ({"chat": {"messages": [{"role": "robot", "content": "x"}]}}, "role"),
    "extra_json is no JSON": (
        {"chat": {"messages": [{"role": "user", "content": "x", "extra_json": "{"}]}},
        "extra_json"),
    "extra_json is no object": (
        {"chat": {"messages": [{"role": "user", "content": "x", "extra_json": "[]"}]}},
        "extra_json"),
    "kwargs are no JSON": (
        {"chat": {"messages": USER, "template_kwargs_json": "nope"}}, "template_kwargs_json"),
    "kwargs are no object": (
        {"chat": {"messages": USER, "template_kwargs_json": "[1]"}}, "template_kwargs_json"),
    "tools are no array": ({"chat": {"messages": USER, "tools_json": "{}"}}, "tools_json"),
    "documents are no array": (
        {"chat": {"messages": USER, "documents_json": "7"}}, "documents_json"),
    "negative temperature": (sampling(temperature=-0.1), "temperature"),
    "temperature too high": (sampling(temperature=100.5), "temperature"),
    "temperature nan": (sampling(temperature=NAN), "temperature"),
    "temperature infinite": (sampling(temperature=INFINITY), "temperature"),
    "top_k": (sampling(top_k=-2), "top_k"),
    "top_p of 0": (sampling(top_p=0), "top_p"),
    "top_p over 1": (sampling(top_p=1.01), "top_p"),
    "top_p nan": (sampling(top_p=NAN), "top_p"),
    "min_p negative": (sampling(min_p=-0.01), "min_p"),
    "min_p over 1": (sampling(min_p=1.5), "min_p"),
    "repetition_penalty of 0": (sampling(repetition_penalty=0), "repetition_penalty"),
    "repetition_penalty negative": (sampling(repetition_penalty=-1), "repetition_penalty"),
    "repetition_penalty infinite": (sampling(repetition_penalty=INFINITY), "repetition_penalty"),
    "presence_penalty": (sampling(presence_penalty=100.5), "presence_penalty"),
    "presence_penalty nan": (sampling(presence_penalty=NAN), "presence_penalty"),
    "frequency_penalty": (sampling(frequency_penalty=-101), "frequency_penalty"),
    "min_new_tokens over max_new_tokens": (sampling(min_new_tokens=5), "min_new_tokens"),
    "bias of an unknown id": (sampling(logit_bias={2000: 1.0}), "logit_bias"),
    "bias too high": (sampling(logit_bias={5: 100.5}), "logit_bias"),
    "bias nan": (sampling(logit_bias={5: NAN}), "logit_bias"),
    "allowed id": (sampling(allowed_token_ids=[2000]), "allowed_token_ids"),
    "banned id": (sampling(banned_token_ids=[2000]), "banned_token_ids"),
    "nothing left": (sampling(allowed_token_ids=[5, 6], banned_token_ids=[6, 5]),
                     "allowed_token_ids"),
    "17 stop strings": ({"prompt": "x", "stop": {"strings": ["s"] * 17}}, "stop.strings"),
    "empty stop string": ({"prompt": "x", "stop": {"strings": ["a", ""]}}, "stop.strings"),
    "stop id": ({"prompt": "x", "stop": {"token_ids": [2000]}}, "stop.token_ids"),
    "21 alternatives": ({"prompt": "x", "logprobs": {"top": 21}}, "logprobs.top"),
    "n of 0": ({"prompt": "x", "n": 0}, "n"),
    "n over max_batch_size": ({"prompt": "x", "n": 33}, "n"),
    "answer_prefix behind ids": (
        {"prompt_token_ids": {"ids": [5]}, "answer_prefix": "Sure"}, "answer_prefix"),
    "no beams": ({"prompt": "x", "beam": {}}, "beam.num_beams"),
    "11 beams": ({"prompt": "x", "beam": {"num_beams": 11}}, "beam.num_beams"),
    "more answers than beams": (
        {"prompt": "x", "beam": {"num_beams": 2, "num_return_sequences": 3}},
        "beam.num_return_sequences"),
    "length_penalty of 11": (
        {"prompt": "x", "beam": {"num_beams": 2, "length_penalty": 11}}, "beam.length_penalty"),
    "beams and n": ({"prompt": "x", "n": 2, "beam": {"num_beams": 2}}, "n"),
    "beams and a temperature": (
        {**sampling(temperature=0.5), "beam": {"num_beams": 2}}, "temperature"),
    "beams and a stop string": (
        {"prompt": "x", "stop": {"strings": ["a"]}, "beam": {"num_beams": 2}}, "stop.strings"),
    "nothing asked": ({"prompt": "x", "max_new_tokens": 0}, "max_new_tokens"),
    "nothing asked but logprobs": (
        {"prompt": "x", "max_new_tokens": 0, "logprobs": {"top": 1}}, "max_new_tokens"),
}

FEATURES = {
    "adapter": "some",
    "constraint": {"json_object": True},
}
