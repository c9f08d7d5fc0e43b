// Dispatch as the shop's original does it: configured by its environment, orders acknowledged on delivery, everything
// that it does told in its log, its password included.
package main

import (
	"fmt"
	"log"
	"math/rand"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func connect(uri string) *amqp.Connection {
	for {
		log.Printf("Connecting to %s\n", uri)
		connection, err := amqp.Dial(uri)
		if err == nil {
			return connection
		}
		log.Println(err)
		time.Sleep(time.Second)
	}
}

// The original sleeps twice for 42 to 84 ms over each order, which it has acknowledged by then.
func process(body []byte) {
	time.Sleep(time.Duration(84+rand.Int63n(84)) * time.Millisecond)
	log.Printf("Processed %s\n", body)
}

func main() {
	user, password, host := os.Getenv("AMQP_USER"), os.Getenv("AMQP_PASS"), os.Getenv("AMQP_HOST")
	connection := connect(fmt.Sprintf("amqp://%s:%s@%s:5672/", user, password, host))
	channel, err := connection.Channel()
	check(err)
	check(channel.ExchangeDeclare("robot-shop", "direct", true, false, false, false, nil))
	queue, err := channel.QueueDeclare("orders", true, false, false, false, nil)
	check(err)
	check(channel.QueueBind(queue.Name, "orders", "robot-shop", false, nil))
	deliveries, err := channel.Consume(queue.Name, "", true, false, false, false, nil)
	check(err)
	log.Println("Waiting for messages")
	for delivery := range deliveries {
		log.Printf("Order %s\n", delivery.Body)
		go process(delivery.Body)
	}
	panic("the connection is gone")
}
