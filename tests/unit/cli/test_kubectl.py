"""What kubectl is told, and what its words are made into."""

from __future__ import annotations

import pytest

from runnerhub_cli.kubectl import Kubectl, explain


def test_the_target_stands_before_what_belongs_to_a_program_in_a_pod() -> None:
    kubectl = Kubectl("here", "there", "/config")
    target = ["--kubeconfig", "/config", "--context", "there"]
    assert kubectl.arguments("exec", "pod", "--", "psql", "-n") == [
        "kubectl", "exec", "pod", *target, "--namespace", "here", "--", "psql", "-n",
    ]  # fmt: skip
    assert kubectl.arguments("get", "nodes", everywhere=True) == ["kubectl", "get", "nodes", *target]
    assert Kubectl().arguments("version") == ["kubectl", "version"]


@pytest.mark.parametrize(
    ("words", "kind", "sentence"),
    [
        (
            'Error from server (Forbidden): pods is forbidden: User "dev" cannot list resource "pods"',
            "forbidden",
            'no permission: pods is forbidden: User "dev" cannot list resource "pods"',
        ),
        ('Error from server (NotFound): secrets "a" not found', "notfound", 'secrets "a" not found'),
        (
            'error: the server doesn\'t have a resource type "runnerhubclusters"',
            "notfound",
            "RunnerHub is not installed in this Kubernetes cluster",
        ),
        (
            "E1126 09:00:00.000000   1 memcache.go:265] couldn't get current server API group list\n"
            "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?",
            "unreachable",
            "the API server does not answer: The connection to the server 10.0.0.1:6443 was refused",
        ),
        (
            "Unable to connect to the server: net/http: request canceled (Client.Timeout exceeded)",
            "unreachable",
            "the API server does not answer: Unable to connect",
        ),
        (
            "error: You must be logged in to the server (Unauthorized)",
            "refused",
            "the API server does not know you",
        ),
        ('error: context "nix" does not exist', "other", 'context "nix" does not exist'),
        ("", "other", "kubectl failed without a word"),
    ],
)
def test_the_last_words_of_kubectl_become_one_sentence(words: str, kind: str, sentence: str) -> None:
    error = explain(words)
    assert error.kind == kind
    assert str(error).startswith(sentence)
    assert "\n" not in str(error)
