// The client for TypeScript, told by JSON lines what to do; see program.py.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { DBOSClient } = createRequire(process.argv[2] + "/")("@dbos-inc/dbos-sdk");
const portable = { serializationType: "portable" };
let client;

const actions = {
  async connect({ url }) {
    client = await DBOSClient.create({ systemDatabaseUrl: url });
  },
  async enqueue({ name, args = [], kwargs = {}, workflow_id }) {
    const options = { workflowName: name, queueName: "interop", workflowID: workflow_id };
    const handle = await client.enqueuePortable(options, args, kwargs);
    return handle.workflowID;
  },
  result: ({ workflow_id }) => client.retrieveWorkflow(workflow_id).getResult(),
  async status({ workflow_id }) {
    const found = await client.retrieveWorkflow(workflow_id).getStatus();
    return { status: found.status, name: found.workflowName, executor_id: found.executorId, output: found.output };
  },
  async steps({ workflow_id }) {
    return (await client.listWorkflowSteps(workflow_id)).map((each) => [each.functionID, each.name]);
  },
  send: ({ workflow_id, message, topic, key }) =>
    client.send(workflow_id, message, topic ?? undefined, key ?? undefined, portable),
  event: ({ workflow_id, key, seconds = 20 }) => client.getEvent(workflow_id, key, seconds),
  async stream({ workflow_id, key }) {
    const values = [];
    for await (const value of client.readStream(workflow_id, key)) values.push(value);
    return values;
  },
  cancel: ({ workflow_id }) => client.cancelWorkflow(workflow_id),
  end: () => client.destroy(),
};

const write = process.stdout.write.bind(process.stdout);
process.stdout.write = () => true; // what the package prints is not an answer
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await actions[asked.do](asked)) ?? null };
  } catch (error) {
    answer = { error: error.constructor.name, text: error.message };
  }
  write(JSON.stringify(answer) + "\n");
}
process.exit(0);
