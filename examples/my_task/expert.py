"""Which class is it? A head, a loss and a score of one's own."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn, tensor

from headwater.corpus import Batch
from headwater.downstream import Expert, Outcome, Output, Tables, Task, masked_mean, question_of_classes, unweighted_accuracy
from headwater.upstream import Frames, UpstreamSpec


@dataclass(frozen=True)
class Options:
    """What `-o my_task.KEY=VALUE` sets."""

    hidden_dim: int = 64


class MyExpert(Expert):
    """One hidden layer in every frame, its mean over time, a linear layer."""

    def __init__(self, options: Options, vocabulary: Mapping, specs: Mapping[str, UpstreamSpec]) -> None:
        super().__init__()
        self.vocabulary = dict(vocabulary)
        self.hidden = nn.Linear(specs["audio"].dim, options.hidden_dim)
        self.classifier = nn.Linear(options.hidden_dim, len(vocabulary["classes"]))

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        audio = frames["audio"]  # values: (batch, frame, dim); valid: (batch, frame), False behind an utterance's end
        return Output(self.classifier(masked_mean(self.hidden(audio.values).tanh(), audio.valid)))  # (batch, class)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(output.values, tensor(batch.targets, device=output.values.device))

    def decode(self, output: Output) -> Tensor:
        return output.values.detach().softmax(dim=-1).cpu()  # scores (batch, class)


def score(vocabulary: Mapping, outcome: Outcome, _: Tables) -> dict[str, float]:
    return {"ua": unweighted_accuracy(outcome.references, outcome.predictions, vocabulary["classes"])}


QUESTION = question_of_classes("my_task", key="emotion", metrics={"ua": "higher"}, score=score)
TASK = Task(name="my_task", options=Options, question=lambda _: QUESTION, build=MyExpert)
