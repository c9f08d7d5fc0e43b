// A consumer that behaves as the original Dispatch does: orders are acknowledged on delivery, without a prefetch
// limit, each is logged with its headers and its id is read; nothing is stored. With PROCESS set each order is then
// logged again and "processed" for 84 to 168 ms by a goroutine of its own, which is what the original does, too.
// Its tracing and its metrics are left out.
package main

import (
	"encoding/json"
	"log"
	"math/rand"
	"net/url"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func orderID(body []byte) string {
	var order map[string]interface{}
	if err := json.Unmarshal(body, &order); err != nil {
		return "unknown"
	}
	id, _ := order["orderid"].(string)
	return id
}

func process(id string) {
	log.Printf("order %s\n", id)
	time.Sleep(time.Duration(42+rand.Int63n(42)) * time.Millisecond)
	time.Sleep(time.Duration(42+rand.Int63n(42)) * time.Millisecond)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds | log.LUTC)
	address := url.URL{
		Scheme: "amqp",
		User:   url.UserPassword(os.Getenv("AMQP_USER"), os.Getenv("AMQP_PASS")),
		Host:   os.Getenv("AMQP_HOST") + ":" + os.Getenv("AMQP_PORT"),
		Path:   "/" + os.Getenv("AMQP_VHOST"),
	}
	connection, err := amqp.Dial(address.String())
	check(err)
	channel, err := connection.Channel()
	check(err)
	_, err = channel.QueueDeclare("orders", true, false, false, false, nil)
	check(err)
	deliveries, err := channel.Consume("orders", "", true, false, false, false, nil)
	check(err)
	log.Println("consuming")
	_, processing := os.LookupEnv("PROCESS")
	for delivery := range deliveries {
		log.Printf("Order %s\n", delivery.Body)
		log.Printf("Headers %v\n", delivery.Headers)
		id := orderID(delivery.Body)
		if processing {
			go process(id)
		}
	}
}
