package main

import (
	"context"
	"flag"
)

func serveVerb() verb {
	return verb{
		name: "serve", group: groupStart,
		summary: "Answer only: the API, on a store that `liverag index` fills",
		about: `Serves the whole API and the web page, and indexes nothing: documents that are written go into the log, and questions are answered from what ` + "`liverag index`" + ` has put into the store. It knows how fresh that is from the log and from what the indexing processes have committed, so ?wait, after and max_staleness work as everywhere.

It needs a log and a store that processes can share: --kafka and --milvus. Start as many as there are questions. Without them, ` + "`liverag up`" + ` does everything in one process.`,
		examples: []example{
			{"one of several, behind a load balancer", "liverag serve --kafka broker1:9092,broker2:9092 --milvus milvus:19530"},
			{"with settings from a file, and a password from the environment", "LIVERAG_MILVUS_PASSWORD=… liverag serve --config production.yaml"},
		},
		settings: []string{"*"},
		setup:    func(*flag.FlagSet) action { return half(duty{serve: true}) },
	}
}

func indexVerb() verb {
	return verb{
		name: "index", group: groupStart,
		summary: "Index only: the pipelines, into a store that `liverag serve` answers from",
		about: `Folds the log into every generation, as a member of their consumer groups: the partitions are shared among all processes that index, and when one goes away, the others take over where it had got to. It answers no questions; --listen offers health, metrics, freshness and generations.

It needs a log and a store that processes can share: --kafka and --milvus. Start as many as there are changes, at most one a partition. Without them, ` + "`liverag up`" + ` does everything in one process.`,
		examples: []example{
			{"one of several", "liverag index --kafka broker1:9092,broker2:9092 --milvus milvus:19530"},
			{"with a model behind an endpoint", "OPENAI_API_KEY=… liverag index --kafka broker:9092 --milvus milvus:19530 --embedder openai/text-embedding-3-small --openai-tpm 1000000"},
		},
		settings: []string{"*"},
		setup:    func(*flag.FlagSet) action { return half(duty{index: true}) },
	}
}

// half runs a part of what up does.
func half(d duty) action {
	return func(ctx context.Context, c *call) error {
		if len(c.Args) > 0 {
			return &usageError{detail: "it takes no arguments: settings are flags"}
		}
		if len(c.Config.Kafka.Brokers) == 0 || c.Config.Milvus.Address == "" {
			return &usageError{
				detail: "the embedded log and the embedded store belong to one process: serve and index need --kafka and --milvus, which processes can share",
				hint:   "`liverag up` does everything in one process",
			}
		}
		return runProcess(ctx, c, d, func(*process) error { return nil }, false)
	}
}
