// A second client, of other makers: Microsoft's JavaScript SDK. Takes what to do as JSON, answers with a line of JSON.
import { EventHubConsumerClient, EventHubProducerClient, earliestEventPosition } from "@azure/event-hubs";

const asked = JSON.parse(process.argv.at(-1));
const retryOptions = { maxRetries: 0, timeoutInMs: 10000 };

async function send() {
  const producer = new EventHubProducerClient(asked.connection, { retryOptions });
  try {
    const properties = await producer.getEventHubProperties();
    for (const [key, bodies] of Object.entries(asked.send)) {
      const batch = await producer.createBatch({ partitionKey: key });
      for (const body of bodies) {
        batch.tryAdd({ body, properties: { event: "enter" }, messageId: `${key}-1`, contentType: "application/json" });
      }
      await producer.sendBatch(batch);
    }
    return { partitions: properties.partitionIds, name: properties.name };
  } finally {
    await producer.close();
  }
}

async function receive() {
  const consumer = new EventHubConsumerClient("$Default", asked.connection, { retryOptions });
  const found = [];
  try {
    await new Promise((resolve, reject) => {
      const subscription = consumer.subscribe(
        {
          processEvents: async (events, context) => {
            for (const each of events) {
              found.push({
                partition: context.partitionId,
                body: each.body,
                key: each.partitionKey ?? null,
                properties: each.properties ?? {},
                sequence: each.sequenceNumber,
                offset: each.offset,
                messageId: each.messageId ?? null,
                contentType: each.contentType ?? null,
              });
            }
            if (found.length >= asked.receive) resolve();
          },
          processError: async (error) => reject(error),
        },
        { startPosition: earliestEventPosition, maxWaitTimeInSeconds: 1 },
      );
      setTimeout(() => reject(new Error(`only ${found.length} events came`)), 15000).unref();
      void subscription;
    });
  } finally {
    await consumer.close();
  }
  return { events: found };
}

try {
  const told = asked.send ? await send() : await receive();
  console.log(JSON.stringify(told));
} catch (error) {
  console.log(JSON.stringify({ error: error.code ?? error.name, message: error.message }));
}
process.exit(0);
